/* The pool of a model.  Workers are started by the first call that has work for them, spin briefly for
 * the next one, then sleep.  The caller takes part, and never waits for a worker that has not begun:
 * on a busy machine a call is at worst as slow as with one thread. */
#include "runtime.h"

#include <sched.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

/* A region is cut in a few pieces per thread: enough to even out, few enough to cost nothing. */
enum { PIECES_PER_THREAD = 4 };
enum { SPIN_LEAST_NS = 2000, SPIN_MOST_NS = 50000 };
enum slot_state { IDLE, CALLED, WORKING, LEAVING };

/* What one worker and the caller share; slots lie on cache lines of their own. */
typedef struct {
    int32_t state;  /* atomic enum slot_state */
    int32_t asleep; /* atomic: the worker waits, or is about to wait, on `wake` */
    pthread_mutex_t lock;
    pthread_cond_t wake;
    pthread_t thread;
    fx_pool *pool;
    char apart[128];
} fx_slot;

struct fx_pool {
    int32_t threads; /* with the caller */
    int32_t started; /* workers that run */
    int32_t busy;    /* atomic: a region is running; others run theirs on their own thread */
    int64_t spin_ns; /* how long to spin before sleeping; 0 where threads outnumber cores */
    fx_slot *slots;
    const fx_launch *launches;
    int32_t n_launches;
    char apart[128];
    int64_t next;           /* atomic: the next piece to run */
    int32_t caller_asleep;  /* atomic */
    pthread_mutex_t lock;
    pthread_cond_t finished;
};

static void relax(void) {
#if defined(__x86_64__) || defined(__i386__)
    __builtin_ia32_pause();
#elif defined(__aarch64__)
    __asm__ volatile("yield");
#endif
}

static int64_t now_ns(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (int64_t)t.tv_sec * 1000000000 + t.tv_nsec;
}

static bool changes_within(const int32_t *state, int32_t from, int64_t limit_ns) {
    int64_t end;
    int32_t i;
    if (__atomic_load_n(state, __ATOMIC_ACQUIRE) != from) return true;
    if (limit_ns <= 0) return false;
    end = now_ns() + limit_ns;
    do {
        for (i = 0; i < 16; i++) {
            if (__atomic_load_n(state, __ATOMIC_ACQUIRE) != from) return true;
            relax();
        }
    } while (now_ns() < end);
    return false;
}

/* ---- pieces ---- */

static bool splits(const fx_launch *l) { return l->grain > 0 && l->count > l->grain; }

/* Points per piece: a multiple of the grain. */
static int64_t piece_points(const fx_launch *l, int32_t threads) {
    int64_t units, most = (int64_t)threads * PIECES_PER_THREAD;
    if (!splits(l)) return l->count;
    units = (l->count - 1) / l->grain + 1;
    return l->grain * ((units - 1) / most + 1);
}

static int64_t piece_count(const fx_launch *l, int32_t threads) {
    return l->count <= 0 ? 0 : (l->count - 1) / piece_points(l, threads) + 1;
}

/* Takes pieces until none is left.  Their numbers only grow, so the walk over the launches goes forward. */
static void run_pieces(fx_pool *pool) {
    const fx_launch *launches = pool->launches;
    int32_t k = 0, n = pool->n_launches;
    int64_t first = 0;
    for (;;) {
        int64_t piece = __atomic_fetch_add(&pool->next, 1, __ATOMIC_RELAXED), points, lo, hi;
        while (k < n && piece >= first + piece_count(&launches[k], pool->threads))
            first += piece_count(&launches[k++], pool->threads);
        if (k == n) return;
        points = piece_points(&launches[k], pool->threads);
        lo = (piece - first) * points;
        hi = launches[k].count - lo < points ? launches[k].count : lo + points;
        launches[k].kernel(launches[k].buffers, launches[k].sizes, lo, hi);
    }
}

/* ---- workers ---- */

static void sleep_until_called(fx_slot *slot) {
    pthread_mutex_lock(&slot->lock);
    __atomic_store_n(&slot->asleep, 1, __ATOMIC_SEQ_CST);
    while (__atomic_load_n(&slot->state, __ATOMIC_SEQ_CST) == IDLE) pthread_cond_wait(&slot->wake, &slot->lock);
    __atomic_store_n(&slot->asleep, 0, __ATOMIC_SEQ_CST);
    pthread_mutex_unlock(&slot->lock);
}

static void finish(fx_slot *slot) {
    fx_pool *pool = slot->pool;
    __atomic_store_n(&slot->state, IDLE, __ATOMIC_SEQ_CST);
    if (!__atomic_load_n(&pool->caller_asleep, __ATOMIC_SEQ_CST)) return;
    pthread_mutex_lock(&pool->lock);
    pthread_cond_signal(&pool->finished);
    pthread_mutex_unlock(&pool->lock);
}

static void *work(void *argument) {
    fx_slot *slot = argument;
    int64_t spin = slot->pool->spin_ns;
    for (;;) {
        int32_t called = CALLED;
        if (changes_within(&slot->state, IDLE, spin)) {
            spin = spin * 2 < slot->pool->spin_ns ? spin * 2 : slot->pool->spin_ns;
        } else {
            /* Nothing came: spin less next time. */
            spin = spin / 2 > SPIN_LEAST_NS ? spin / 2 : (spin > 0 ? SPIN_LEAST_NS : 0);
            sleep_until_called(slot);
        }
        if (__atomic_load_n(&slot->state, __ATOMIC_ACQUIRE) == LEAVING) return NULL;
        if (!__atomic_compare_exchange_n(&slot->state, &called, WORKING, false, __ATOMIC_SEQ_CST,
                                         __ATOMIC_SEQ_CST))
            continue; /* called back before it began, or told to leave */
        run_pieces(slot->pool);
        finish(slot);
    }
}

static void set_state(fx_slot *slot, int32_t state) {
    __atomic_store_n(&slot->state, state, __ATOMIC_SEQ_CST);
    if (!__atomic_load_n(&slot->asleep, __ATOMIC_SEQ_CST)) return;
    pthread_mutex_lock(&slot->lock);
    pthread_cond_signal(&slot->wake);
    pthread_mutex_unlock(&slot->lock);
}

/* Starts workers up to `wanted`; with fewer, where the system gives no more, the work is done as well. */
static int32_t start_workers(fx_pool *pool, int32_t wanted) {
    sigset_t all, before;
    if (pool->started >= wanted) return wanted;
    /* Signals belong to the program's own threads. */
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before);
    while (pool->started < wanted) {
        fx_slot *slot = &pool->slots[pool->started];
        slot->pool = pool;
        slot->state = slot->asleep = 0;
        pthread_mutex_init(&slot->lock, NULL);
        pthread_cond_init(&slot->wake, NULL);
        if (pthread_create(&slot->thread, NULL, work, slot) != 0) break;
        pool->started++;
    }
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    return pool->started;
}

/* ---- regions ---- */

static void run_alone(const fx_launch *launches, int32_t n) {
    int32_t k;
    for (k = 0; k < n; k++)
        if (launches[k].count > 0)
            launches[k].kernel(launches[k].buffers, launches[k].sizes, 0, launches[k].count);
}

static void wait_for(fx_pool *pool, fx_slot *slot) {
    int32_t called = CALLED;
    if (__atomic_compare_exchange_n(&slot->state, &called, IDLE, false, __ATOMIC_SEQ_CST, __ATOMIC_SEQ_CST))
        return; /* it had not begun, and all work is done */
    if (changes_within(&slot->state, WORKING, pool->spin_ns)) return;
    pthread_mutex_lock(&pool->lock);
    __atomic_store_n(&pool->caller_asleep, 1, __ATOMIC_SEQ_CST);
    while (__atomic_load_n(&slot->state, __ATOMIC_SEQ_CST) == WORKING)
        pthread_cond_wait(&pool->finished, &pool->lock);
    __atomic_store_n(&pool->caller_asleep, 0, __ATOMIC_SEQ_CST);
    pthread_mutex_unlock(&pool->lock);
}

static void run_together(fx_pool *pool, const fx_launch *launches, int32_t n, int32_t helpers) {
    int32_t i;
    pool->launches = launches;
    pool->n_launches = n;
    __atomic_store_n(&pool->next, 0, __ATOMIC_RELAXED);
    helpers = start_workers(pool, helpers);
    for (i = 0; i < helpers; i++) set_state(&pool->slots[i], CALLED);
    run_pieces(pool);
    for (i = 0; i < helpers; i++) wait_for(pool, &pool->slots[i]);
}

void fx_parallel_batch(fx_call *call, const fx_launch *launches, int32_t n) {
    fx_pool *pool = call->model->pool;
    int64_t pieces = 0;
    bool worth = false;
    int32_t k;
    for (k = 0; k < n && pool->threads > 1; k++) {
        pieces += piece_count(&launches[k], pool->threads);
        worth = worth || splits(&launches[k]);
    }
    /* A region inside a region, or beside another caller's: every core has work already. */
    if (!worth || __atomic_exchange_n(&pool->busy, 1, __ATOMIC_ACQUIRE)) {
        run_alone(launches, n);
        return;
    }
    run_together(pool, launches, n, pieces < pool->threads ? (int32_t)pieces - 1 : pool->threads - 1);
    __atomic_store_n(&pool->busy, 0, __ATOMIC_RELEASE);
}

void fx_parallel(fx_call *call, fx_kernel *kernel, void *const *buffers, const int64_t *sizes, int64_t count,
                 int64_t grain) {
    fx_launch launch = {kernel, buffers, sizes, count, grain};
    fx_parallel_batch(call, &launch, 1);
}

/* ---- pools ---- */

int32_t fx_available_cores(void) {
    long n;
#if defined(__linux__) && defined(CPU_COUNT)
    cpu_set_t set;
    if (sched_getaffinity(0, sizeof set, &set) == 0) {
        int count = CPU_COUNT(&set);
        if (count > 0) return count < FX_MAX_THREADS ? count : FX_MAX_THREADS;
    }
#endif
    n = sysconf(_SC_NPROCESSORS_ONLN);
    return n < 1 ? 1 : n < FX_MAX_THREADS ? (int32_t)n : FX_MAX_THREADS;
}

fx_pool *fx_pool_new(int32_t threads) {
    fx_pool *pool = calloc(1, sizeof *pool);
    if (pool == NULL) return NULL;
    pool->threads = threads;
    pool->spin_ns = threads <= fx_available_cores() ? SPIN_MOST_NS : 0;
    pool->slots = calloc((size_t)threads, sizeof(fx_slot));
    if (pool->slots == NULL) {
        free(pool);
        return NULL;
    }
    pthread_mutex_init(&pool->lock, NULL);
    pthread_cond_init(&pool->finished, NULL);
    return pool;
}

void fx_pool_forget_threads(fx_pool *pool) {
    /* Locks of slots are made anew with their workers; the pool's own was free, as no region ran. */
    pool->started = 0;
}

void fx_pool_free(fx_pool *pool) {
    int32_t i;
    for (i = 0; i < pool->started; i++) set_state(&pool->slots[i], LEAVING);
    for (i = 0; i < pool->started; i++) {
        pthread_join(pool->slots[i].thread, NULL);
        pthread_mutex_destroy(&pool->slots[i].lock);
        pthread_cond_destroy(&pool->slots[i].wake);
    }
    pthread_mutex_destroy(&pool->lock);
    pthread_cond_destroy(&pool->finished);
    free(pool->slots);
    free(pool);
}
