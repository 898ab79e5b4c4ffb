#include "worker.h"

#include <string.h>

#include "log.h"

/* Waits for a job; returns 0 when the pool stops. */
static int queue_take(struct job_queue *queue, struct job *job)
{
    pthread_mutex_lock(&queue->lock);
    if (queue->count == 0 && !queue->stopping)
        pthread_cond_wait(&queue->filled, &queue->lock);
    if (queue->stopping) {
        pthread_mutex_unlock(&queue->lock);
        return 0;
    }
    *job = queue->jobs[queue->head];
    queue->head = (queue->head + 1) % QUEUE_DEPTH;
    queue->count--;
    queue->done++;
    pthread_mutex_unlock(&queue->lock);
    return 1;
}

static void *worker_main(void *arg)
{
    struct job_queue *queue = arg;
    struct job job;

    while (queue_take(queue, &job))
        job.run(job.arg);
    return NULL;
}

int pool_start(struct worker_pool *pool, size_t n_threads)
{
    size_t i;

    if (n_threads == 0 || n_threads > WORKER_MAX)
        return PARCEL_E_LIMIT;
    memset(pool, 0, sizeof(*pool));
    pthread_mutex_init(&pool->queue.lock, NULL);
    pthread_cond_init(&pool->queue.filled, NULL);
    for (i = 0; i < n_threads; i++) {
        if (pthread_create(&pool->threads[i], NULL, worker_main, &pool->queue) != 0) {
            log_warn("only %zu of %zu workers started", i, n_threads);
            break;
        }
        pool->n_threads++;
    }
    return pool->n_threads > 0 ? PARCEL_OK : PARCEL_E_NOMEM;
}

/* Queues a job; a full queue is the caller's to wait for. */
int pool_submit(struct worker_pool *pool, job_fn run, void *arg)
{
    struct job_queue *queue = &pool->queue;
    size_t slot;

    if (run == NULL)
        return PARCEL_E_SYNTAX;
    if (queue->count == QUEUE_DEPTH)
        return PARCEL_E_LIMIT;
    pthread_mutex_lock(&queue->lock);
    if (queue->stopping) {
        pthread_mutex_unlock(&queue->lock);
        return PARCEL_E_DENIED;
    }
    slot = (queue->head + queue->count) % QUEUE_DEPTH;
    queue->jobs[slot].run = run;
    queue->jobs[slot].arg = arg;
    queue->count++;
    pthread_cond_signal(&queue->filled);
    pthread_mutex_unlock(&queue->lock);
    return PARCEL_OK;
}

void pool_stop(struct worker_pool *pool)
{
    size_t i;

    pthread_mutex_lock(&pool->queue.lock);
    pool->queue.stopping = 1;
    pthread_cond_broadcast(&pool->queue.filled);
    pthread_mutex_unlock(&pool->queue.lock);
    for (i = 0; i < pool->n_threads; i++)
        pthread_join(pool->threads[i], NULL);
    log_info("%lu jobs done", pool->queue.done);
}
