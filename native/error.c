/* SPDX-License-Identifier: Apache-2.0 */
/* BpfError: one line that names the operation, the thing and the reason; and libbpf's log behind it. */
#define _GNU_SOURCE
#include "maglane.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define KERNEL_ENOTSUPP 524 /* the kernel's own, unknown to the C library */

/* libbpf's own errors, from LIBBPF_ERRNO__LIBELF on. */
static const char *const libbpf_codes[] = {
	"LIBBPF_LIBELF",   "LIBBPF_FORMAT",   "LIBBPF_KVERSION", "LIBBPF_ENDIAN",  "LIBBPF_INTERNAL",
	"LIBBPF_RELOC",	   "LIBBPF_LOAD",     "LIBBPF_VERIFY",	 "LIBBPF_PROG2BIG", "LIBBPF_KVER",
	"LIBBPF_PROGTYPE", "LIBBPF_WRNGPID", "LIBBPF_INVSEQ",	 "LIBBPF_NLPARSE",
};

/* Where the operation tells more than the errno's usual text. The first match counts. */
static const struct {
	const char *op_prefix;
	int error;
	const char *text;
} meanings[] = {
	{ "map_update", E2BIG, "no room: the map is full" },
	{ "map_update", EEXIST, "the key is already there" },
	{ "map_update", ENOENT, "no such key" },
	{ "map_delete", ENOENT, "no such key" },
	{ "link_xdp", EBUSY, "another XDP program holds the device" },
	{ "link_xdp", EEXIST, "another XDP program holds the device" },
	{ "link_xdp", EOPNOTSUPP, "the device's driver has no native XDP" },
	{ "link_tcx", EINVAL, "refused; kernels before 6.6 have no tcx" },
	{ "", KERNEL_ENOTSUPP, "not supported by this kernel" },
};

static _Thread_local struct {
	char text[8192];
	size_t used;
} tail;

void log_clear(void)
{
	tail.used = 0;
	tail.text[0] = '\0';
}

/* Keeps the last bytes: the verifier ends with its reason. */
static void log_append(const char *text, size_t length)
{
	const size_t room = sizeof(tail.text) - 1;

	if (length > room) {
		text += length - room;
		length = room;
	}
	if (tail.used + length > room) {
		size_t drop = tail.used + length - room;

		memmove(tail.text, tail.text + drop, tail.used - drop);
		tail.used -= drop;
	}
	memcpy(tail.text + tail.used, text, length);
	tail.used += length;
	tail.text[tail.used] = '\0';
}

char *log_copy(void)
{
	return strndup(tail.text, tail.used);
}

void log_adopt(const char *text)
{
	log_clear();
	log_append(text, strlen(text));
}

static int log_take(enum libbpf_print_level level, const char *format, va_list list)
{
	char *text;
	int length;

	if (level == LIBBPF_DEBUG)
		return 0;
	length = vasprintf(&text, format, list);
	if (length < 0)
		return 0;
	log_append(text, length);
	free(text);
	return length;
}

void log_start(void)
{
	libbpf_set_print(log_take);
}

static const char *code_of(int error, char room[24])
{
	const char *name = strerrorname_np(error);

	if (name)
		return name;
	if (error == KERNEL_ENOTSUPP)
		return "ENOTSUPP";
	if (error >= LIBBPF_ERRNO__LIBELF && error - LIBBPF_ERRNO__LIBELF < (int)ARRAY_SIZE(libbpf_codes))
		return libbpf_codes[error - LIBBPF_ERRNO__LIBELF];
	snprintf(room, 24, "ERRNO_%d", error);
	return room;
}

static const char *meaning_of(const char *op, int error, char room[128])
{
	const char *text;

	for (size_t i = 0; i < ARRAY_SIZE(meanings); i++)
		if (meanings[i].error == error && strncmp(op, meanings[i].op_prefix, strlen(meanings[i].op_prefix)) == 0)
			return meanings[i].text;
	text = strerrordesc_np(error);
	if (text)
		return text;
	libbpf_strerror(error, room, 128);
	return room;
}

void fail(struct call *c, int error, const char *subject)
{
	fail_with(c, (struct failure){ .error = error, .subject = subject });
}

void fail_because(struct call *c, int error, const char *subject, const char *detail)
{
	fail_with(c, (struct failure){ .error = error, .subject = subject, .detail = detail });
}

void fail_with(struct call *c, struct failure f)
{
	const int error = abs(f.error);
	const char *subject = f.subject ? f.subject : "";
	char code_room[24], meaning_room[128], message[PATH_ROOM + 512];
	const char *code = code_of(error, code_room);
	napi_value thrown;

	if (c->failed)
		return;
	c->failed = true;
	snprintf(message, sizeof(message), "%s%s%s: %s (%s)", c->op, *subject ? " " : "", subject, code,
		 f.detail ? f.detail : meaning_of(c->op, error, meaning_room));
	if (napi_create_error(c->env, give_text(c->env, code), give_text(c->env, message), &thrown) != napi_ok)
		return;
	set(c->env, thrown, "name", give_text(c->env, "BpfError"));
	set(c->env, thrown, "operation", give_text(c->env, c->op));
	set(c->env, thrown, "errno", give_number(c->env, error));
	set(c->env, thrown, "subject", give_text(c->env, subject));
	set(c->env, thrown, "log", give_text(c->env, f.log ? tail.text : ""));
	if (f.batch)
		set(c->env, thrown, "done", give_number(c->env, f.done));
	napi_throw(c->env, thrown);
}
