/* SPDX-License-Identifier: Apache-2.0 */
/* Reading out sockets and ending them, as promises. */
#define _GNU_SOURCE
#include "maglane.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define CHUNK 65536 /* what the kernel gives at a time is at most 32 KiB */

struct socket_job {
	struct job job;
	char subject[PATH_ROOM]; /* what a failure is about; destroyUdp: the namespace, "" the process's own */
	int program_fd, map_fd;	 /* iterate: duplicates; otherwise -1 */
	uint8_t *data;		 /* iterate: what came; destroyUdp: the ids */
	size_t length;
	uint32_t destroyed;
	int error; /* negative errno */
};

static struct socket_job *of(struct job *job)
{
	return (struct socket_job *)job;
}

static struct socket_job *job_begin(struct call *c)
{
	struct socket_job *job = c->failed ? NULL : calloc(1, sizeof(*job));

	if (!job) {
		fail(c, ENOMEM, "");
		return NULL;
	}
	job->program_fd = job->map_fd = -1;
	return job;
}

static void free_job(struct job *base)
{
	struct socket_job *job = of(base);

	if (job->program_fd >= 0)
		close(job->program_fd);
	if (job->map_fd >= 0)
		close(job->map_fd);
	free(job->data);
	free(job);
}

/* ---- iterate ---- */

/* 0, or a negative errno. */
static int read_all(struct socket_job *job, int iterator)
{
	size_t room = 0;

	for (;;) {
		ssize_t got;

		if (room - job->length < CHUNK) {
			uint8_t *data = realloc(job->data, room = 2 * room + CHUNK);

			if (!data)
				return -ENOMEM;
			job->data = data;
		}
		got = read(iterator, job->data + job->length, room - job->length);
		if (got == 0)
			return 0;
		if (got > 0)
			job->length += got;
		else if (errno != EAGAIN && errno != EINTR) /* EAGAIN: a million elements without a word; go on */
			return -errno;
	}
}

static void run_iterate(struct job *base)
{
	struct socket_job *job = of(base);
	union bpf_iter_link_info over = { .map = { .map_fd = job->map_fd } };
	LIBBPF_OPTS(bpf_link_create_opts, opts, .iter_info = &over, .iter_info_len = sizeof(over));
	int link = bpf_link_create(job->program_fd, 0, BPF_TRACE_ITER, &opts);
	int iterator = link < 0 ? link : bpf_iter_create(link);

	job->error = iterator < 0 ? iterator : read_all(job, iterator);
	if (iterator >= 0)
		close(iterator);
	if (link >= 0)
		close(link);
}

static napi_value finish_iterate(struct call *c, struct job *base)
{
	const struct socket_job *job = of(base);
	napi_value result;
	void *data;

	if (job->error) {
		fail(c, job->error, job->subject);
		return NULL;
	}
	result = give_bytes(c, job->length, &data);
	if (result && job->length > 0)
		memcpy(data, job->data, job->length);
	return result;
}

static const struct job_kind iterating = { run_iterate, finish_iterate, free_job };

static napi_value iterate(napi_env env, napi_callback_info info)
{
	struct call c = call_begin(env, info, "iterate");
	int program_fd = arg_fd(&c, 0), map_fd = arg_fd(&c, 1);
	struct bpf_map_info map;
	struct socket_job *job;

	check_kind(&c, program_fd, FD_PROGRAM);
	check_kind(&c, map_fd, FD_MAP);
	if (!map_info(&c, map_fd, &map))
		return NULL;
	job = job_begin(&c);
	if (!job)
		return NULL;
	strcpy(job->subject, map.name);
	/* The caller may close its own meanwhile. */
	job->program_fd = fcntl(program_fd, F_DUPFD_CLOEXEC, 0);
	job->map_fd = fcntl(map_fd, F_DUPFD_CLOEXEC, 0);
	if (job->program_fd < 0 || job->map_fd < 0)
		fail(&c, errno, map.name);
	return job_start(&c, &job->job, &iterating);
}

/* ---- destroyUdp ---- */

static void run_destroy(struct job *base)
{
	struct socket_job *job = of(base);
	const struct socket_id *ids = (const void *)job->data;
	int sock = diag_open(job->subject), result = 0;

	for (size_t i = 0; sock >= 0 && result >= 0 && i < job->length / sizeof(*ids); i++) {
		result = diag_destroy_udp(sock, &ids[i]);
		if (result > 0)
			job->destroyed++;
	}
	job->error = sock < 0 ? sock : result < 0 ? result : 0;
	if (sock >= 0)
		close(sock);
}

static napi_value finish_destroy(struct call *c, struct job *base)
{
	const struct socket_job *job = of(base);

	if (!job->error)
		return give_number(c->env, job->destroyed);
	fail(c, job->error, job->subject);
	return NULL;
}

static const struct job_kind destroying = { run_destroy, finish_destroy, free_job };

static napi_value destroy_udp(napi_env env, napi_callback_info info)
{
	struct call c = call_begin(env, info, "destroy_udp");
	struct bytes ids = arg_bytes(&c, 0, "ids");
	struct socket_job *job;

	if (!c.failed && ids.length % sizeof(struct socket_id) != 0)
		fail_range(&c, "ids must have a multiple of %zu bytes, not %zu", sizeof(struct socket_id), ids.length);
	job = job_begin(&c);
	if (!job)
		return NULL;
	if (!arg_absent(&c, 1))
		arg_text(&c, 1, "namespace", job->subject, sizeof(job->subject));
	if (!c.failed && ids.length > 0) {
		job->data = malloc(ids.length);
		if (job->data)
			memcpy(job->data, ids.data, job->length = ids.length);
		else
			fail(&c, ENOMEM, "");
	}
	return job_start(&c, &job->job, &destroying);
}

const struct function socket_functions[] = { { "iterate", iterate }, { "destroyUdp", destroy_udp } };
const size_t socket_function_count = ARRAY_SIZE(socket_functions);
