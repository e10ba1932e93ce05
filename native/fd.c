/* SPDX-License-Identifier: Apache-2.0 */
/* File descriptors: what they are, pins, locks. */
#define _GNU_SOURCE
#include "maglane.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/file.h>
#include <unistd.h>

static const char *const kind_names[] = { "something else", "closed", "a BPF map", "a BPF program", "a BPF link" };

enum fd_kind fd_kind(int fd)
{
	char path[32], target[64];
	ssize_t length;

	snprintf(path, sizeof(path), "/proc/self/fd/%d", fd);
	length = readlink(path, target, sizeof(target) - 1);
	if (length < 0)
		return errno == ENOENT ? FD_CLOSED : FD_OTHER;
	target[length] = '\0';
	if (strcmp(target, "anon_inode:bpf-map") == 0)
		return FD_MAP;
	if (strcmp(target, "anon_inode:bpf-prog") == 0)
		return FD_PROGRAM;
	/* With an underscore as it was made, with a dash as it was opened again. */
	if (strcmp(target, "anon_inode:bpf_link") == 0 || strcmp(target, "anon_inode:bpf-link") == 0)
		return FD_LINK;
	return FD_OTHER;
}

void check_kind(struct call *c, int fd, enum fd_kind want)
{
	enum fd_kind kind;

	if (c->failed)
		return;
	kind = fd_kind(fd);
	if (kind == FD_CLOSED)
		fail(c, EBADF, "");
	else if (kind != want)
		fail_type(c, "fd %d must be %s, but is %s", fd, kind_names[want], kind_names[kind]);
}

/* Whether fd holds a lock of lock(): only flock() shows as FLOCK here. */
static bool is_lock(int fd)
{
	char path[40], line[256];
	bool found = false;
	FILE *file;

	snprintf(path, sizeof(path), "/proc/self/fdinfo/%d", fd);
	file = fopen(path, "re");
	if (!file)
		return false;
	while (!found && fgets(line, sizeof(line), file))
		found = strncmp(line, "lock:", 5) == 0 && strstr(line, " FLOCK ");
	fclose(file);
	return found;
}

/*
 * Closing a descriptor of Node's event loop ends the process much later and far away, so
 * only what this addon gives out can be closed through it.
 */
static int owned_fd(struct call *c)
{
	int fd = arg_fd(c, 0);
	enum fd_kind kind;

	if (c->failed)
		return -1;
	kind = fd_kind(fd);
	if (kind == FD_CLOSED)
		fail(c, EBADF, "");
	else if (kind == FD_OTHER && !is_lock(fd))
		fail_type(c, "fd %d is not one of this addon's", fd);
	return fd;
}

static napi_value fd_close(napi_env env, napi_callback_info info)
{
	struct call c = call_begin(env, info, "close");
	int fd = owned_fd(&c);

	if (!c.failed && close(fd) != 0)
		fail(&c, errno, "");
	return NULL;
}

static napi_value fd_dup(napi_env env, napi_callback_info info)
{
	struct call c = call_begin(env, info, "dup");
	int fd = owned_fd(&c), copy;

	if (c.failed)
		return NULL;
	copy = fcntl(fd, F_DUPFD_CLOEXEC, 0);
	if (copy < 0) {
		fail(&c, errno, "");
		return NULL;
	}
	return give_number(env, copy);
}

static napi_value fd_pin(napi_env env, napi_callback_info info)
{
	struct call c = call_begin(env, info, "pin");
	char path[PATH_ROOM];
	int fd = owned_fd(&c);

	arg_text(&c, 1, "path", path, sizeof(path));
	if (!c.failed && bpf_obj_pin(fd, path) != 0)
		fail(&c, errno, path);
	return NULL;
}

static napi_value fd_open_pin(napi_env env, napi_callback_info info)
{
	struct call c = call_begin(env, info, "pin_open");
	char path[PATH_ROOM];
	int fd;

	arg_text(&c, 0, "path", path, sizeof(path));
	if (c.failed)
		return NULL;
	fd = bpf_obj_get(path);
	if (fd >= 0)
		return give_number(env, fd);
	if (errno != ENOENT)
		fail(&c, errno, path);
	return NULL;
}

static napi_value fd_lock(napi_env env, napi_callback_info info)
{
	struct call c = call_begin(env, info, "lock");
	char path[PATH_ROOM];
	int fd, error;

	arg_text(&c, 0, "path", path, sizeof(path));
	if (c.failed)
		return NULL;
	/* Non-blocking: opening a FIFO would wait for its other end. */
	fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
	if (fd < 0) {
		fail(&c, errno, path);
		return NULL;
	}
	if (flock(fd, LOCK_EX | LOCK_NB) == 0)
		return give_number(env, fd);
	error = errno;
	close(fd);
	if (error != EWOULDBLOCK)
		fail(&c, error, path);
	return NULL;
}

const struct function fd_functions[] = {
	{ "close", fd_close },	    { "dup", fd_dup },	 { "pin", fd_pin },
	{ "openPin", fd_open_pin }, { "lock", fd_lock },
};
const size_t fd_function_count = ARRAY_SIZE(fd_functions);
