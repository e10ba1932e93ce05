/* SPDX-License-Identifier: Apache-2.0 */
/* The clsact hook of tc, for kernels without tcx. Its filters live with the device, not with a descriptor. */
#include "maglane.h"

#include <errno.h>

static const char *const directions[] = { "ingress", "egress" };

/* One place on a device: the arguments from `first` on are ifindex, direction, handle, priority. */
struct place {
	struct bpf_tc_hook hook;
	struct bpf_tc_opts options;
	char device[32];
};

static struct place arg_place(struct call *c, int first)
{
	struct place place = {
		.hook = { .sz = sizeof(struct bpf_tc_hook) },
		.options = { .sz = sizeof(struct bpf_tc_opts) },
	};

	place.hook.ifindex = arg_number(c, first, "ifindex", 1, INT32_MAX);
	place.hook.attach_point = arg_choice(c, first + 1, "direction", directions, ARRAY_SIZE(directions)) ?
					  BPF_TC_EGRESS :
					  BPF_TC_INGRESS;
	place.options.handle = arg_number(c, first + 2, "handle", 1, UINT32_MAX);
	place.options.priority = arg_number(c, first + 3, "priority", 1, UINT16_MAX);
	device_name(place.hook.ifindex, place.device);
	return place;
}

/* The id of the program at a place; 0 for none, and after throwing. */
static uint32_t program_at(struct call *c, struct place place)
{
	int error;

	if (c->failed)
		return 0;
	error = -bpf_tc_query(&place.hook, &place.options);
	/* EINVAL: the device has no clsact yet. */
	if (error && error != ENOENT && error != EINVAL)
		fail(c, error, place.device);
	return error ? 0 : place.options.prog_id;
}

static napi_value clsact_attach(napi_env env, napi_callback_info info)
{
	struct call c = call_begin(env, info, "clsact_attach");
	int program = arg_fd(&c, 0), error;
	struct place place = arg_place(&c, 1);

	check_kind(&c, program, FD_PROGRAM);
	if (c.failed)
		return NULL;
	place.options.prog_fd = program;
	place.options.flags = BPF_TC_F_REPLACE;
	error = -bpf_tc_hook_create(&place.hook);
	if (error == 0 || error == EEXIST)
		error = -bpf_tc_attach(&place.hook, &place.options);
	if (error)
		fail(&c, error, place.device);
	return NULL;
}

static napi_value clsact_query(napi_env env, napi_callback_info info)
{
	struct call c = call_begin(env, info, "clsact_query");
	struct place place = arg_place(&c, 0);
	uint32_t id = program_at(&c, place);

	return c.failed ? NULL : give_number(env, id);
}

static napi_value clsact_detach(napi_env env, napi_callback_info info)
{
	struct call c = call_begin(env, info, "clsact_detach");
	struct place place = arg_place(&c, 0);
	bool found = program_at(&c, place) != 0;
	int error;

	if (c.failed)
		return NULL;
	error = found ? -bpf_tc_detach(&place.hook, &place.options) : 0;
	if (error && error != ENOENT) {
		fail(&c, error, place.device);
		return NULL;
	}
	return give_bool(env, found && !error);
}

const struct function tc_functions[] = {
	{ "clsactAttach", clsact_attach },
	{ "clsactQuery", clsact_query },
	{ "clsactDetach", clsact_detach },
};
const size_t tc_function_count = ARRAY_SIZE(tc_functions);
