/* SPDX-License-Identifier: Apache-2.0 */
/* Arguments from JavaScript, checked; results to JavaScript. */
#include "maglane.h"

#include <limits.h>
#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

struct call call_begin(napi_env env, napi_callback_info info, const char *op)
{
	struct call c = { .env = env, .op = op };
	size_t count = ARRAY_SIZE(c.args);

	if (napi_get_cb_info(env, info, &count, c.args, &c.self, NULL) != napi_ok)
		c.failed = true;
	return c;
}

static void fail_argument(struct call *c, bool type, const char *format, va_list list)
{
	char message[512];
	int used;

	if (c->failed)
		return;
	c->failed = true;
	used = snprintf(message, sizeof(message), "%s: ", c->op);
	vsnprintf(message + used, sizeof(message) - used, format, list);
	if (type)
		napi_throw_type_error(c->env, "ERR_INVALID_ARG_TYPE", message);
	else
		napi_throw_range_error(c->env, "ERR_OUT_OF_RANGE", message);
}

void fail_type(struct call *c, const char *format, ...)
{
	va_list list;

	va_start(list, format);
	fail_argument(c, true, format, list);
	va_end(list);
}

void fail_range(struct call *c, const char *format, ...)
{
	va_list list;

	va_start(list, format);
	fail_argument(c, false, format, list);
	va_end(list);
}

bool arg_absent(struct call *c, int i)
{
	napi_valuetype type;

	return c->failed || napi_typeof(c->env, c->args[i], &type) != napi_ok || type == napi_undefined;
}

uint64_t arg_number(struct call *c, int i, const char *name, uint64_t min, uint64_t max)
{
	double value;

	if (c->failed)
		return min;
	if (napi_get_value_double(c->env, c->args[i], &value) != napi_ok) {
		fail_type(c, "%s must be a number", name);
		return min;
	}
	if (!(value >= (double)min && value <= (double)max) || value != floor(value)) {
		fail_range(c, "%s must be a whole number from %llu to %llu, not %g", name, (unsigned long long)min,
			   (unsigned long long)max, value);
		return min;
	}
	return (uint64_t)value;
}

int arg_fd(struct call *c, int i)
{
	return (int)arg_number(c, i, "fd", 0, INT_MAX);
}

struct bytes arg_bytes(struct call *c, int i, const char *name)
{
	struct bytes bytes = { 0 };
	napi_typedarray_type type;
	bool typed = false;
	void *data = NULL;

	if (c->failed)
		return bytes;
	if (napi_is_typedarray(c->env, c->args[i], &typed) != napi_ok || !typed ||
	    napi_get_typedarray_info(c->env, c->args[i], &type, &bytes.length, &data, NULL, NULL) != napi_ok ||
	    type != napi_uint8_array) {
		fail_type(c, "%s must be a Uint8Array", name);
		return (struct bytes){ 0 };
	}
	bytes.data = data;
	return bytes;
}

void arg_text(struct call *c, int i, const char *name, char *text, size_t room)
{
	size_t length = 0;

	text[0] = '\0';
	if (c->failed)
		return;
	if (napi_get_value_string_utf8(c->env, c->args[i], NULL, 0, &length) != napi_ok)
		fail_type(c, "%s must be a string", name);
	else if (length == 0 || length >= room)
		fail_range(c, "%s must have 1 to %zu bytes, not %zu", name, room - 1, length);
	else if (napi_get_value_string_utf8(c->env, c->args[i], text, room, &length) != napi_ok)
		fail_type(c, "%s must be a string", name);
	else if (strlen(text) != length) /* C would see, and use, another text than the caller gave */
		fail_range(c, "%s must not hold a NUL character", name);
}

int arg_choice(struct call *c, int i, const char *name, const char *const *choices, int count)
{
	char text[32], all[256] = "";
	size_t length = 0;

	if (c->failed)
		return 0;
	if (napi_get_value_string_utf8(c->env, c->args[i], text, sizeof(text), &length) != napi_ok) {
		fail_type(c, "%s must be a string", name);
		return 0;
	}
	for (int at = 0; at < count; at++) {
		if (strlen(choices[at]) == length && memcmp(choices[at], text, length) == 0)
			return at;
		if (at > 0)
			strcat(all, ", ");
		strcat(all, choices[at]);
	}
	fail_range(c, "%s must be one of %s, not \"%s\"", name, all, text);
	return 0;
}

void check_length(struct call *c, const char *subject, const char *name, struct bytes bytes, uint64_t want)
{
	if (bytes.length != want)
		fail_range(c, "%s%s%s must have %llu bytes, not %zu", subject, *subject ? ": " : "", name,
			   (unsigned long long)want, bytes.length);
}

napi_value give_number(napi_env env, double value)
{
	napi_value result = NULL;

	napi_create_double(env, value, &result);
	return result;
}

napi_value give_bool(napi_env env, bool value)
{
	napi_value result = NULL;

	napi_get_boolean(env, value, &result);
	return result;
}

napi_value give_text(napi_env env, const char *text)
{
	napi_value result = NULL;

	napi_create_string_utf8(env, text, NAPI_AUTO_LENGTH, &result);
	return result;
}

napi_value give_bytes(struct call *c, size_t length, void **data)
{
	napi_value buffer, result = NULL;

	/* Beyond this V8 would end the process for want of memory instead of throwing. */
	if (length > UINT32_MAX) {
		fail_range(c, "%zu bytes are more than one buffer can hold", length);
		return NULL;
	}
	if (napi_create_arraybuffer(c->env, length, data, &buffer) != napi_ok ||
	    napi_create_typedarray(c->env, napi_uint8_array, length, buffer, 0, &result) != napi_ok) {
		c->failed = true;
		return NULL;
	}
	return result;
}

void set(napi_env env, napi_value object, const char *name, napi_value value)
{
	napi_set_named_property(env, object, name, value);
}

void define(napi_env env, napi_value object, const struct function *functions, size_t count)
{
	for (size_t i = 0; i < count; i++) {
		napi_value function;

		if (napi_create_function(env, functions[i].name, NAPI_AUTO_LENGTH, functions[i].run, NULL,
					 &function) == napi_ok)
			set(env, object, functions[i].name, function);
	}
}
