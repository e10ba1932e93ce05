/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Ring buffers. Node-API has no way to watch a descriptor, so a thread of its own sleeps
 * until there are records and wakes the event loop; the records are read there, and the
 * thread waits until they have been. No record crosses a thread.
 */
#define _GNU_SOURCE
#include "maglane.h"

#include <errno.h>
#include <poll.h>
#include <semaphore.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <unistd.h>

#define RECORDS_PER_TURN 1024 /* then timers and sockets get their turn */
#define PAUSE_MS 1

struct ring {
	napi_env env;
	struct ring_buffer *records;
	napi_threadsafe_function loop; /* the way from the thread to the event loop */
	napi_value on_record;	       /* valid while `reading` */
	pthread_t thread;
	sem_t done; /* posted when the event loop has read what there was */
	int stop_fd;
	bool running, reading;
	int turn; /* records read in this one */
	int holders; /* the way to the event loop, and the function that stops: whoever goes last frees */
};

static void ring_release(struct ring *ring)
{
	if (--ring->holders > 0)
		return;
	sem_destroy(&ring->done);
	close(ring->stop_fd);
	free(ring);
}

static void *ring_thread(void *data)
{
	struct ring *ring = data;
	struct pollfd fds[] = {
		{ .fd = ring->stop_fd, .events = POLLIN },
		{ .fd = ring_buffer__epoll_fd(ring->records), .events = POLLIN },
	};

	pthread_setname_np(pthread_self(), "maglane:ring");
	for (;;) {
		if (poll(fds, ARRAY_SIZE(fds), -1) < 0)
			continue; /* EINTR; memory pressure */
		if (fds[0].revents)
			return NULL;
		if (napi_call_threadsafe_function(ring->loop, NULL, napi_tsfn_nonblocking) != napi_ok)
			return NULL;
		while (sem_wait(&ring->done) != 0)
			;
		/* Called again at once, the event loop would go on with this and nothing else. */
		if (ring->turn >= RECORDS_PER_TURN)
			poll(fds, 1, PAUSE_MS);
	}
}

/* Ends the thread. Safe to call twice, and from within a record's callback. */
static void ring_stop(void *data)
{
	struct ring *ring = data;

	if (!ring->running)
		return;
	ring->running = false;
	eventfd_write(ring->stop_fd, 1);
	sem_post(&ring->done);
	pthread_join(ring->thread, NULL);
	if (!ring->reading)
		ring_buffer__free(ring->records);
	napi_remove_env_cleanup_hook(ring->env, ring_stop, ring);
	napi_release_threadsafe_function(ring->loop, napi_tsfn_abort);
}

/* What the callback throws is the process's to handle, like an exception of any other event. */
static bool report_exception(napi_env env)
{
	napi_value thrown;
	bool pending = false;

	if (napi_is_exception_pending(env, &pending) != napi_ok || !pending)
		return false;
	return napi_get_and_clear_last_exception(env, &thrown) == napi_ok &&
	       napi_fatal_exception(env, thrown) == napi_ok;
}

static int ring_record(void *data, void *record, size_t size)
{
	struct ring *ring = data;
	struct call c = { .env = ring->env, .op = "ring_buffer" };
	napi_handle_scope scope;
	napi_value receiver, array;
	bool going = true;
	void *copy;

	if (napi_open_handle_scope(c.env, &scope) != napi_ok)
		return -ECANCELED;
	array = give_bytes(&c, size, &copy);
	if (array) {
		memcpy(copy, record, size);
		napi_get_undefined(c.env, &receiver);
		if (napi_call_function(c.env, receiver, ring->on_record, 1, &array, NULL) != napi_ok)
			going = report_exception(c.env);
	}
	napi_close_handle_scope(c.env, scope);
	/* A negative result ends the turn, with this record taken. */
	return going && ring->running && ++ring->turn < RECORDS_PER_TURN ? 0 : -ECANCELED;
}

/* On the event loop. env is NULL when it is being torn down. */
static void ring_read(napi_env env, napi_value on_record, void *context, void *data)
{
	struct ring *ring = context;

	(void)data;
	if (!env || !ring->running)
		return;
	ring->on_record = on_record;
	ring->turn = 0;
	ring->reading = true;
	ring_buffer__consume(ring->records);
	ring->reading = false;
	if (ring->running)
		sem_post(&ring->done);
	else
		ring_buffer__free(ring->records); /* stopped by its own callback */
}

static void loop_gone(napi_env env, void *data, void *hint)
{
	(void)env;
	(void)hint;
	ring_release(data);
}

static napi_value ring_stop_called(napi_env env, napi_callback_info info)
{
	void *ring = NULL;

	if (napi_get_cb_info(env, info, NULL, NULL, NULL, &ring) == napi_ok)
		ring_stop(ring);
	return NULL;
}

static void stopper_gone(napi_env env, void *data, void *hint)
{
	(void)env;
	(void)hint;
	ring_release(data);
}

static struct ring *ring_open(struct call *c, int fd, const char *name)
{
	struct ring *ring = calloc(1, sizeof(*ring));
	int error = ENOMEM;

	if (ring) {
		ring->env = c->env;
		ring->stop_fd = eventfd(0, EFD_CLOEXEC);
		ring->records = ring->stop_fd < 0 ? NULL : ring_buffer__new(fd, ring_record, ring, NULL);
		if (ring->records) {
			sem_init(&ring->done, 0, 0);
			return ring;
		}
		error = errno;
		if (ring->stop_fd >= 0)
			close(ring->stop_fd);
		free(ring);
	}
	fail(c, error, name);
	return NULL;
}

static napi_value ring_buffer(napi_env env, napi_callback_info info)
{
	struct call c = call_begin(env, info, "ring_buffer");
	int fd = arg_fd(&c, 0), error;
	struct bpf_map_info map;
	napi_value stop;
	napi_valuetype type;
	struct ring *ring;

	if (!c.failed && (napi_typeof(env, c.args[1], &type) != napi_ok || type != napi_function))
		fail_type(&c, "onRecord must be a function");
	check_kind(&c, fd, FD_MAP);
	if (!map_info(&c, fd, &map))
		return NULL;
	ring = ring_open(&c, fd, map.name);
	if (!ring)
		return NULL;
	if (napi_create_function(env, "stop", NAPI_AUTO_LENGTH, ring_stop_called, ring, &stop) != napi_ok ||
	    napi_create_threadsafe_function(env, c.args[1], NULL, give_text(env, "maglane:ringBuffer"), 1, 1, ring,
					    loop_gone, ring, ring_read, &ring->loop) != napi_ok) {
		ring_buffer__free(ring->records);
		ring->holders = 1;
		ring_release(ring);
		fail(&c, ENOMEM, map.name);
		return NULL;
	}
	napi_unref_threadsafe_function(env, ring->loop);
	napi_add_finalizer(env, stop, ring, stopper_gone, NULL, NULL);
	ring->holders = 2;
	error = start_thread(&ring->thread, ring_thread, ring);
	if (error) {
		ring_buffer__free(ring->records);
		napi_release_threadsafe_function(ring->loop, napi_tsfn_abort);
		fail(&c, error, map.name);
		return NULL;
	}
	ring->running = true;
	/* Before the event loop goes, the thread that calls it must have. */
	napi_add_env_cleanup_hook(env, ring_stop, ring);
	return stop;
}

const struct function ring_functions[] = { { "ringBuffer", ring_buffer } };
const size_t ring_function_count = ARRAY_SIZE(ring_functions);
