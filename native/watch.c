/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Descriptors that the event loop should know of. Node-API has no way to watch one, so a thread of its own sleeps
 * until there is something and wakes the event loop; it is read there, and the thread waits until it has been.
 * Nothing that is read crosses a thread.
 */
#define _GNU_SOURCE
#include "maglane.h"

#include <errno.h>
#include <poll.h>
#include <semaphore.h>
#include <stdlib.h>
#include <sys/eventfd.h>
#include <unistd.h>

#define PAUSE_MS 1

struct watch {
	napi_env env;
	const struct watch_kind *kind;
	void *data;
	int fd, stop_fd;
	napi_threadsafe_function loop; /* the way from the thread to the event loop */
	pthread_t thread;
	sem_t done; /* posted when the event loop has read what there was */
	bool running, reading;
	bool more; /* the last reading left something */
	int holders; /* the way to the event loop, and the function that stops: whoever goes last frees */
};

bool watch_running(const struct watch *watch)
{
	return watch->running;
}

static void watch_release(struct watch *watch)
{
	if (--watch->holders > 0)
		return;
	sem_destroy(&watch->done);
	close(watch->stop_fd);
	free(watch);
}

static void *watch_thread(void *data)
{
	struct watch *watch = data;
	struct pollfd fds[] = {
		{ .fd = watch->stop_fd, .events = POLLIN },
		{ .fd = watch->fd, .events = POLLIN },
	};

	pthread_setname_np(pthread_self(), watch->kind->name);
	for (;;) {
		if (poll(fds, ARRAY_SIZE(fds), -1) < 0)
			continue; /* EINTR; memory pressure */
		if (fds[0].revents)
			return NULL;
		if (napi_call_threadsafe_function(watch->loop, NULL, napi_tsfn_nonblocking) != napi_ok)
			return NULL;
		while (sem_wait(&watch->done) != 0)
			;
		/* Called again at once, the event loop would go on with this and nothing else. */
		if (watch->more)
			poll(fds, 1, PAUSE_MS);
	}
}

/* Ends the thread. Safe to call twice, and from within the callback. */
static void watch_stop(void *data)
{
	struct watch *watch = data;

	if (!watch->running)
		return;
	watch->running = false;
	eventfd_write(watch->stop_fd, 1);
	sem_post(&watch->done);
	pthread_join(watch->thread, NULL);
	if (!watch->reading)
		watch->kind->free(watch->data);
	napi_remove_env_cleanup_hook(watch->env, watch_stop, watch);
	napi_release_threadsafe_function(watch->loop, napi_tsfn_abort);
}

bool report_exception(napi_env env)
{
	napi_value thrown;
	bool pending = false;

	if (napi_is_exception_pending(env, &pending) != napi_ok || !pending)
		return false;
	return napi_get_and_clear_last_exception(env, &thrown) == napi_ok &&
	       napi_fatal_exception(env, thrown) == napi_ok;
}

/* On the event loop. env is NULL when it is being torn down. */
static void watch_read(napi_env env, napi_value callback, void *context, void *unused)
{
	struct watch *watch = context;

	(void)unused;
	if (!env || !watch->running)
		return;
	watch->reading = true;
	watch->more = watch->kind->read(env, callback, watch->data);
	watch->reading = false;
	if (watch->running)
		sem_post(&watch->done);
	else
		watch->kind->free(watch->data); /* stopped by its own callback */
}

static void holder_gone(napi_env env, void *data, void *hint)
{
	(void)env;
	(void)hint;
	watch_release(data);
}

static napi_value watch_stop_called(napi_env env, napi_callback_info info)
{
	void *watch = NULL;

	if (napi_get_cb_info(env, info, NULL, NULL, NULL, &watch) == napi_ok)
		watch_stop(watch);
	return NULL;
}

static struct watch *watch_make(struct call *c, int fd, const struct watch_kind *kind, void *data)
{
	struct watch *watch = calloc(1, sizeof(*watch));

	if (!watch)
		return NULL;
	*watch = (struct watch){ .env = c->env, .kind = kind, .data = data, .fd = fd, .holders = 1 };
	watch->stop_fd = eventfd(0, EFD_CLOEXEC);
	if (watch->stop_fd >= 0 && sem_init(&watch->done, 0, 0) == 0)
		return watch;
	free(watch);
	return NULL;
}

/* The function that stops; NULL after throwing, with nothing left but `data`. */
static napi_value watch_begin(struct call *c, napi_value callback, struct watch *watch)
{
	napi_value stop, name = give_text(c->env, watch->kind->name);
	int error;

	if (napi_create_function(c->env, "stop", NAPI_AUTO_LENGTH, watch_stop_called, watch, &stop) != napi_ok ||
	    napi_create_threadsafe_function(c->env, callback, NULL, name, 1, 1, watch, holder_gone, watch, watch_read,
					    &watch->loop) != napi_ok) {
		watch_release(watch);
		fail(c, ENOMEM, "");
		return NULL;
	}
	napi_unref_threadsafe_function(c->env, watch->loop);
	napi_add_finalizer(c->env, stop, watch, holder_gone, NULL, NULL);
	watch->holders = 2;
	error = start_thread(&watch->thread, watch_thread, watch);
	if (error) {
		napi_release_threadsafe_function(watch->loop, napi_tsfn_abort);
		fail(c, error, "");
		return NULL;
	}
	watch->running = true;
	/* Before the event loop goes, the thread that calls it must have. */
	napi_add_env_cleanup_hook(c->env, watch_stop, watch);
	return stop;
}

napi_value watch_start(struct call *c, int i, int fd, const struct watch_kind *kind, void *data, struct watch **watch)
{
	napi_value stop = NULL;
	napi_valuetype type;

	if (!c->failed && (napi_typeof(c->env, c->args[i], &type) != napi_ok || type != napi_function))
		fail_type(c, "the callback must be a function");
	if (!c->failed) {
		*watch = watch_make(c, fd, kind, data);
		if (*watch)
			stop = watch_begin(c, c->args[i], *watch);
		else
			fail(c, ENOMEM, "");
	}
	if (!stop)
		kind->free(data);
	return stop;
}
