/* SPDX-License-Identifier: Apache-2.0 */
/* The calling process's network namespace, and its machine. */
#define _GNU_SOURCE
#include "maglane.h"

#include <errno.h>
#include <net/if.h>
#include <stdio.h>
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
	{ "netnsCookie", netns_cookie },
	{ "possibleCpus", possible_cpus },
};
const size_t net_function_count = ARRAY_SIZE(net_functions);
