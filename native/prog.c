/* SPDX-License-Identifier: Apache-2.0 */
/* Programs: what they are, and running them on a packet of the caller's. */
#include "maglane.h"

#include <errno.h>
#include <linux/bpf.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define MAX_ROOM (1u << 20)
#define GROWTH 256 /* what a program may add to a packet, unless told */

static bool program_info(struct call *c, int fd, struct bpf_prog_info *info)
{
	__u32 length = sizeof(*info);

	check_kind(c, fd, FD_PROGRAM);
	if (c->failed)
		return false;
	memset(info, 0, sizeof(*info));
	if (bpf_obj_get_info_by_fd(fd, info, &length) != 0)
		fail(c, errno, "");
	return !c->failed;
}

static napi_value give_program_info(napi_env env, napi_callback_info info)
{
	struct call c = call_begin(env, info, "program_info");
	int fd = arg_fd(&c, 0);
	char tag[2 * BPF_TAG_SIZE + 1];
	struct bpf_prog_info program;
	napi_value result;

	if (!program_info(&c, fd, &program) || napi_create_object(env, &result) != napi_ok)
		return NULL;
	for (int i = 0; i < BPF_TAG_SIZE; i++)
		snprintf(tag + 2 * i, 3, "%02x", program.tag[i]);
	set(env, result, "id", give_number(env, program.id));
	set(env, result, "name", give_text(env, program.name));
	set(env, result, "type", give_number(env, program.type));
	set(env, result, "tag", give_text(env, tag));
	return result;
}

struct run {
	struct bytes data, context;
	uint32_t repeat, flags, room;
};

/* Reads testRun's options. Getters may run any code, so every one is read before any memory is looked at. */
static struct run arg_run(struct call *c)
{
	static const char *const names[] = { "data", "ctx", "repeat", "flags", "room" };
	napi_value options = c->args[1];
	struct run run = { .repeat = 1 };
	napi_valuetype type;

	if (c->failed)
		return run;
	if (napi_typeof(c->env, options, &type) != napi_ok || type != napi_object) {
		fail_type(c, "options must be an object");
		return run;
	}
	for (size_t i = 0; i < ARRAY_SIZE(names); i++) {
		if (napi_get_named_property(c->env, options, names[i], &c->args[i + 1]) != napi_ok) {
			c->failed = true;
			return run;
		}
	}
	if (!arg_absent(c, 3))
		run.repeat = arg_number(c, 3, "repeat", 1, INT32_MAX);
	if (!arg_absent(c, 4))
		run.flags = arg_number(c, 4, "flags", 0, UINT32_MAX);
	run.data = arg_bytes(c, 1, "data");
	if (!arg_absent(c, 2))
		run.context = arg_bytes(c, 2, "ctx");
	if (run.data.length > MAX_ROOM - GROWTH || run.context.length > 4096)
		fail_range(c, "data or ctx is too long");
	run.room = run.data.length + GROWTH;
	if (!arg_absent(c, 5))
		run.room = arg_number(c, 5, "room", 0, MAX_ROOM);
	return run;
}

/*
 * The kernel gives up half way when its thread is interrupted, and packets cannot be taken
 * back. Node's threads are, by signals and by io_uring; a fresh one has nobody who would.
 */
struct undisturbed {
	int fd, error;
	struct bpf_test_run_opts *options;
};

static void *run_here(void *data)
{
	struct undisturbed *run = data;

	run->error = bpf_prog_test_run_opts(run->fd, run->options) == 0 ? 0 : errno;
	return NULL;
}

static int run_undisturbed(int fd, struct bpf_test_run_opts *options)
{
	struct undisturbed run = { .fd = fd, .options = options };
	pthread_t thread;
	int error = start_thread(&thread, run_here, &run);

	if (error)
		return error;
	pthread_join(thread, NULL);
	return run.error;
}

static napi_value give_run(struct call *c, const struct bpf_test_run_opts *options, const uint8_t *out)
{
	size_t length = out ? options->data_size_out : 0;
	napi_value result, data;
	void *copy;

	data = give_bytes(c, length, &copy);
	if (!data || napi_create_object(c->env, &result) != napi_ok)
		return NULL;
	if (length)
		memcpy(copy, out, length);
	set(c->env, result, "retval", give_number(c->env, options->retval));
	set(c->env, result, "duration", give_number(c->env, options->duration));
	set(c->env, result, "data", data);
	return result;
}

static napi_value test_run(napi_env env, napi_callback_info info)
{
	struct call c = call_begin(env, info, "test_run");
	int fd = arg_fd(&c, 0), error;
	struct run run = arg_run(&c);
	LIBBPF_OPTS(bpf_test_run_opts, options);
	struct bpf_prog_info program;
	napi_value result = NULL;
	uint8_t *out = NULL;

	if (!program_info(&c, fd, &program))
		return NULL;
	/* Nothing comes back from packets that are really sent, nor from programs that take none. */
	if (run.room && run.data.length && !(run.flags & BPF_F_TEST_XDP_LIVE_FRAMES)) {
		out = malloc(run.room);
		if (!out) {
			fail(&c, ENOMEM, program.name);
			return NULL;
		}
		options.data_out = out;
		options.data_size_out = run.room;
	}
	if (run.data.length) {
		options.data_in = run.data.data;
		options.data_size_in = run.data.length;
	}
	if (run.context.length) {
		options.ctx_in = run.context.data;
		options.ctx_size_in = run.context.length;
	}
	options.repeat = run.repeat;
	options.flags = run.flags;
	error = run_undisturbed(fd, &options);
	if (error)
		fail(&c, error, program.name);
	else
		result = give_run(&c, &options, out);
	free(out);
	return result;
}

const struct function program_functions[] = {
	{ "programInfo", give_program_info },
	{ "testRun", test_run },
};
const size_t program_function_count = ARRAY_SIZE(program_functions);
