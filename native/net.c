/* SPDX-License-Identifier: Apache-2.0 */
/* The calling process's network namespace. Everything comes from sockets: /sys may show another namespace's devices. */
#define _GNU_SOURCE
#include "maglane.h"

#include <arpa/inet.h>
#include <errno.h>
#include <ifaddrs.h>
#include <linux/ethtool.h>
#include <linux/if_packet.h>
#include <linux/sockios.h>
#include <net/if.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <unistd.h>

#ifndef SO_NETNS_COOKIE
#define SO_NETNS_COOKIE 71
#endif

const char *device_name(uint32_t ifindex, char text[32])
{
	if (!if_indextoname(ifindex, text))
		snprintf(text, 32, "ifindex %u", ifindex);
	return text;
}

/* "10.0.0.1/24": false for other families. */
static bool address_text(const struct ifaddrs *a, char text[INET6_ADDRSTRLEN + 4])
{
	const uint8_t *address, *mask;
	size_t length, bits = 0;

	if (!a->ifa_addr || !a->ifa_netmask)
		return false;
	if (a->ifa_addr->sa_family == AF_INET) {
		address = (const void *)&((const struct sockaddr_in *)a->ifa_addr)->sin_addr;
		mask = (const void *)&((const struct sockaddr_in *)a->ifa_netmask)->sin_addr;
		length = 4;
	} else if (a->ifa_addr->sa_family == AF_INET6) {
		address = (const void *)&((const struct sockaddr_in6 *)a->ifa_addr)->sin6_addr;
		mask = (const void *)&((const struct sockaddr_in6 *)a->ifa_netmask)->sin6_addr;
		length = 16;
	} else {
		return false;
	}
	for (size_t i = 0; i < length; i++)
		bits += __builtin_popcount(mask[i]);
	inet_ntop(a->ifa_addr->sa_family, address, text, INET6_ADDRSTRLEN);
	snprintf(text + strlen(text), 5, "/%zu", bits);
	return true;
}

/* An address may carry a label of its own behind a colon, which no device's name can hold: "eth0:1". */
static bool belongs_to(const struct ifaddrs *a, const char *device)
{
	size_t length = strcspn(a->ifa_name, ":");

	return strlen(device) == length && memcmp(a->ifa_name, device, length) == 0;
}

static napi_value give_addresses(napi_env env, const struct ifaddrs *all, const char *device)
{
	char text[INET6_ADDRSTRLEN + 4];
	napi_value result = NULL;
	uint32_t count = 0;

	napi_create_array(env, &result);
	for (const struct ifaddrs *a = all; a; a = a->ifa_next)
		if (belongs_to(a, device) && address_text(a, text))
			napi_set_element(env, result, count++, give_text(env, text));
	return result;
}

static void mac_text(const struct sockaddr_ll *link, char text[18])
{
	static const uint8_t none[6];
	const unsigned char *m = link->sll_addr;

	text[0] = '\0';
	if (link->sll_halen == 6 && memcmp(m, none, 6) != 0)
		snprintf(text, 18, "%02x:%02x:%02x:%02x:%02x:%02x", m[0], m[1], m[2], m[3], m[4], m[5]);
}

/* One device, from its link-layer entry. NULL when it is gone meanwhile. */
static napi_value give_interface(napi_env env, int sock, const struct ifaddrs *all, const struct ifaddrs *entry)
{
	const struct sockaddr_ll *link = (const void *)entry->ifa_addr;
	struct ethtool_drvinfo driver = { .cmd = ETHTOOL_GDRVINFO };
	struct ifreq request = { 0 };
	napi_value result;
	char mac[18];
	int mtu;

	snprintf(request.ifr_name, sizeof(request.ifr_name), "%s", entry->ifa_name);
	if (ioctl(sock, SIOCGIFMTU, &request) != 0 || napi_create_object(env, &result) != napi_ok)
		return NULL;
	mtu = request.ifr_mtu;
	request.ifr_data = (void *)&driver;
	if (ioctl(sock, SIOCETHTOOL, &request) != 0) /* some have none: loopback */
		driver.driver[0] = '\0';
	driver.driver[sizeof(driver.driver) - 1] = '\0';
	mac_text(link, mac);
	set(env, result, "name", give_text(env, entry->ifa_name));
	set(env, result, "index", give_number(env, link->sll_ifindex));
	set(env, result, "mtu", give_number(env, mtu));
	set(env, result, "up", give_bool(env, entry->ifa_flags & IFF_UP));
	set(env, result, "loopback", give_bool(env, entry->ifa_flags & IFF_LOOPBACK));
	set(env, result, "mac", give_text(env, mac));
	set(env, result, "driver", give_text(env, driver.driver));
	set(env, result, "addresses", give_addresses(env, all, entry->ifa_name));
	return result;
}

static napi_value interfaces(napi_env env, napi_callback_info info)
{
	struct call c = call_begin(env, info, "interfaces");
	int sock = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
	struct ifaddrs *all = NULL;
	napi_value result = NULL;
	uint32_t count = 0;

	if (sock < 0 || getifaddrs(&all) != 0)
		fail(&c, errno, "");
	else if (napi_create_array(env, &result) == napi_ok) {
		for (const struct ifaddrs *a = all; a; a = a->ifa_next) {
			napi_value one;

			/* Each device has exactly one link-layer entry. */
			if (!a->ifa_addr || a->ifa_addr->sa_family != AF_PACKET)
				continue;
			one = give_interface(env, sock, all, a);
			if (one)
				napi_set_element(env, result, count++, one);
		}
	}
	freeifaddrs(all);
	if (sock >= 0)
		close(sock);
	return result;
}

static napi_value netns_cookie(napi_env env, napi_callback_info info)
{
	struct call c = call_begin(env, info, "netns_cookie");
	int sock = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
	napi_value result = NULL;
	uint64_t cookie = 0;
	socklen_t length = sizeof(cookie);

	if (sock < 0 || getsockopt(sock, SOL_SOCKET, SO_NETNS_COOKIE, &cookie, &length) != 0)
		fail(&c, errno, "");
	else
		napi_create_bigint_uint64(env, cookie, &result);
	if (sock >= 0)
		close(sock);
	return result;
}

static napi_value possible_cpus(napi_env env, napi_callback_info info)
{
	struct call c = call_begin(env, info, "possible_cpus");
	int cpus = libbpf_num_possible_cpus();

	if (cpus > 0)
		return give_number(env, cpus);
	fail(&c, cpus, "/sys/devices/system/cpu/possible");
	return NULL;
}

const struct function net_functions[] = {
	{ "interfaces", interfaces },
	{ "netnsCookie", netns_cookie },
	{ "possibleCpus", possible_cpus },
};
const size_t net_function_count = ARRAY_SIZE(net_functions);
