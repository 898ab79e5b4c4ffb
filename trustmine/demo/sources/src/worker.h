#ifndef PARCEL_WORKER_H
#define PARCEL_WORKER_H

#include <pthread.h>

#include "parcel.h"

#define QUEUE_DEPTH 32
#define WORKER_MAX 8

typedef void (*job_fn)(void *arg);

struct job {
    job_fn run;
    void *arg;
};

struct job_queue {
    pthread_mutex_t lock;
    pthread_cond_t filled;
    struct job jobs[QUEUE_DEPTH];
    size_t head;
    size_t count;
    int stopping;
    unsigned long done;
};

struct worker_pool {
    struct job_queue queue;
    pthread_t threads[WORKER_MAX];
    size_t n_threads;
};

int pool_start(struct worker_pool *pool, size_t n_threads);
int pool_submit(struct worker_pool *pool, job_fn run, void *arg);
void pool_stop(struct worker_pool *pool);

#endif
