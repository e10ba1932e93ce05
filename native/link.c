/* SPDX-License-Identifier: Apache-2.0 */
/* Links: programs on cgroups, XDP and tcx hooks. A link is a descriptor that can be pinned and updated in place. */
#include "maglane.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/bpf.h>
#include <linux/if_link.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

/* Of kernel 6.6; older headers lack them. */
#define ATTACH_TCX_INGRESS 46
#define ATTACH_TCX_EGRESS 47
#define LINK_TYPE_TCX 11

static const char *const cgroup_hooks[] = {
	"connect4",  "connect6",     "sendmsg4",     "sendmsg6",     "recvmsg4",
	"recvmsg6",  "getpeername4", "getpeername6", "sock_release",
};
static const enum bpf_attach_type cgroup_attach_types[] = {
	BPF_CGROUP_INET4_CONNECT,  BPF_CGROUP_INET6_CONNECT,	 BPF_CGROUP_UDP4_SENDMSG,
	BPF_CGROUP_UDP6_SENDMSG,   BPF_CGROUP_UDP4_RECVMSG,	 BPF_CGROUP_UDP6_RECVMSG,
	BPF_CGROUP_INET4_GETPEERNAME, BPF_CGROUP_INET6_GETPEERNAME, BPF_CGROUP_INET_SOCK_RELEASE,
};

static const char *const xdp_modes[] = { "native", "generic" };
static const char *const directions[] = { "ingress", "egress" };

/* A link's descriptor, or NULL after throwing. */
static napi_value give_link(struct call *c, int fd, const char *subject)
{
	if (fd >= 0)
		return give_number(c->env, fd);
	fail(c, errno, subject);
	return NULL;
}

static napi_value link_cgroup(napi_env env, napi_callback_info info)
{
	struct call c = call_begin(env, info, "link_cgroup");
	int program = arg_fd(&c, 0), cgroup, link, error;
	char path[PATH_ROOM];
	int hook;

	arg_text(&c, 1, "cgroup", path, sizeof(path));
	hook = arg_choice(&c, 2, "attach", cgroup_hooks, ARRAY_SIZE(cgroup_hooks));
	check_kind(&c, program, FD_PROGRAM);
	if (c.failed)
		return NULL;
	cgroup = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (cgroup < 0) {
		fail(&c, errno, path);
		return NULL;
	}
	link = bpf_link_create(program, cgroup, cgroup_attach_types[hook], NULL);
	error = errno;
	close(cgroup);
	errno = error;
	return give_link(&c, link, path);
}

static napi_value link_xdp(napi_env env, napi_callback_info info)
{
	struct call c = call_begin(env, info, "link_xdp");
	int program = arg_fd(&c, 0);
	uint32_t ifindex = arg_number(&c, 1, "ifindex", 1, INT32_MAX);
	int generic = arg_choice(&c, 2, "mode", xdp_modes, ARRAY_SIZE(xdp_modes));
	LIBBPF_OPTS(bpf_link_create_opts, options, .flags = generic ? XDP_FLAGS_SKB_MODE : XDP_FLAGS_DRV_MODE);
	char device[32];

	check_kind(&c, program, FD_PROGRAM);
	if (c.failed)
		return NULL;
	return give_link(&c, bpf_link_create(program, ifindex, BPF_XDP, &options), device_name(ifindex, device));
}

static napi_value link_tcx(napi_env env, napi_callback_info info)
{
	struct call c = call_begin(env, info, "link_tcx");
	int program = arg_fd(&c, 0);
	uint32_t ifindex = arg_number(&c, 1, "ifindex", 1, INT32_MAX);
	int egress = arg_choice(&c, 2, "direction", directions, ARRAY_SIZE(directions));
	char device[32];

	check_kind(&c, program, FD_PROGRAM);
	if (c.failed)
		return NULL;
	return give_link(&c,
			 bpf_link_create(program, ifindex, egress ? ATTACH_TCX_EGRESS : ATTACH_TCX_INGRESS, NULL),
			 device_name(ifindex, device));
}

static napi_value link_update(napi_env env, napi_callback_info info)
{
	struct call c = call_begin(env, info, "link_update");
	int link = arg_fd(&c, 0), program = arg_fd(&c, 1);

	check_kind(&c, link, FD_LINK);
	check_kind(&c, program, FD_PROGRAM);
	if (!c.failed && bpf_link_update(link, program, NULL) != 0)
		fail(&c, errno, "");
	return NULL;
}

static napi_value link_detach(napi_env env, napi_callback_info info)
{
	struct call c = call_begin(env, info, "link_detach");
	int link = arg_fd(&c, 0);

	check_kind(&c, link, FD_LINK);
	if (!c.failed && bpf_link_detach(link) != 0)
		fail(&c, errno, "");
	return NULL;
}

/* Where a link is attached; 0 for what its type does not have. */
static void link_place(const struct bpf_link_info *link, uint32_t *ifindex, uint32_t *attach_type)
{
	const struct {
		uint32_t ifindex, attach_type;
	} *tcx = (const void *)&link->xdp; /* the same place, in kernels that know it */

	*ifindex = *attach_type = 0;
	if (link->type == BPF_LINK_TYPE_XDP) {
		*ifindex = link->xdp.ifindex;
		*attach_type = BPF_XDP;
	} else if (link->type == BPF_LINK_TYPE_CGROUP) {
		*attach_type = link->cgroup.attach_type;
	} else if (link->type == LINK_TYPE_TCX) {
		*ifindex = tcx->ifindex;
		*attach_type = tcx->attach_type;
	}
}

static napi_value link_info(napi_env env, napi_callback_info info)
{
	struct call c = call_begin(env, info, "link_info");
	int fd = arg_fd(&c, 0);
	struct bpf_link_info link = { 0 };
	__u32 length = sizeof(link);
	uint32_t ifindex, attach_type;
	napi_value result;

	check_kind(&c, fd, FD_LINK);
	if (c.failed)
		return NULL;
	if (bpf_obj_get_info_by_fd(fd, &link, &length) != 0) {
		fail(&c, errno, "");
		return NULL;
	}
	if (napi_create_object(env, &result) != napi_ok)
		return NULL;
	link_place(&link, &ifindex, &attach_type);
	set(env, result, "id", give_number(env, link.id));
	set(env, result, "type", give_number(env, link.type));
	set(env, result, "programId", give_number(env, link.prog_id));
	set(env, result, "ifindex", give_number(env, ifindex));
	set(env, result, "attachType", give_number(env, attach_type));
	return result;
}

const struct function link_functions[] = {
	{ "linkCgroup", link_cgroup }, { "linkXdp", link_xdp },	      { "linkTcx", link_tcx },
	{ "linkUpdate", link_update }, { "linkDetach", link_detach }, { "linkInfo", link_info },
};
const size_t link_function_count = ARRAY_SIZE(link_functions);
