/* SPDX-License-Identifier: Apache-2.0 */
/* What takes its time, as promises: the work is done on a thread of the pool. */
#include "maglane.h"

#include <errno.h>
#include <stdlib.h>

/* On a thread of the pool. */
static void job_run(napi_env env, void *data)
{
	struct job *job = data;

	(void)env;
	job->kind->run(job);
}

static void job_free(napi_env env, struct job *job)
{
	if (job->self)
		napi_delete_reference(env, job->self);
	job->kind->free(job);
}

/* On the event loop again. */
static void job_done(napi_env env, napi_status status, void *data)
{
	struct job *job = data;
	struct call c = { .env = env, .op = job->op };
	napi_value result;

	(void)status; /* nobody cancels */
	result = job->kind->finish(&c, job);
	if (c.failed && napi_get_and_clear_last_exception(env, &result) == napi_ok)
		napi_reject_deferred(env, job->deferred, result);
	else
		napi_resolve_deferred(env, job->deferred, result);
	napi_delete_async_work(env, job->work);
	job_free(env, job);
}

napi_value job_start(struct call *c, struct job *job, const struct job_kind *kind)
{
	napi_value promise = NULL;

	job->op = c->op;
	job->kind = kind;
	if (!c->failed && napi_create_reference(c->env, c->self, 1, &job->self) == napi_ok &&
	    napi_create_async_work(c->env, NULL, give_text(c->env, job->op), job_run, job_done, job, &job->work) ==
		    napi_ok) {
		if (napi_create_promise(c->env, &job->deferred, &promise) == napi_ok &&
		    napi_queue_async_work(c->env, job->work) == napi_ok)
			return promise;
		napi_delete_async_work(c->env, job->work);
	}
	fail(c, ENOMEM, "");
	job_free(c->env, job);
	return NULL;
}
