/* The pool alone: every point of every launch is visited once, in pieces that respect the grain. */
#include "hand_model.h"
#include "../../runtime/native/runtime.h"

#include <string.h>

enum { MOST = 5000 };

static unsigned char seen[8][MOST];
static int64_t grains[8];

static void visit(void *const *buffers, const int64_t *sizes, int64_t lo, int64_t hi) {
    unsigned char *marks = buffers[0];
    int64_t grain = sizes[1], i;
    CHECK(lo >= 0 && lo < hi && hi <= sizes[0]);
    CHECK(grain == 0 || lo % grain == 0);
    CHECK(grain == 0 || hi % grain == 0 || hi == sizes[0]);
    for (i = lo; i < hi; i++) marks[i]++;
}

static fx_call *current;

/* A region inside a region runs where it stands. */
static void nest(void *const *buffers, const int64_t *sizes, int64_t lo, int64_t hi) {
    int64_t inner[2] = {10, 1}, i;
    unsigned char marks[10] = {0};
    void *const nested[1] = {marks};
    visit(buffers, sizes, lo, hi);
    fx_parallel(current, visit, nested, inner, 10, 1);
    for (i = 0; i < 10; i++) CHECK(marks[i] == 1);
}

static void run_batch(fx_call *call, int32_t n, uint32_t random) {
    fx_launch launches[8];
    void *buffers[8][1];
    int64_t sizes[8][2], i;
    int32_t k;
    memset(seen, 0, sizeof seen);
    for (k = 0; k < n; k++) {
        random = random * 1664525u + 1013904223u;
        buffers[k][0] = seen[k];
        sizes[k][0] = (int64_t)(random >> 8) % MOST;
        if (k == 1) sizes[k][0] = 0;
        sizes[k][1] = grains[k] = (int64_t)(random >> 4) % 40;
        launches[k].kernel = k == 2 ? nest : visit;
        launches[k].buffers = buffers[k];
        launches[k].sizes = sizes[k];
        launches[k].count = sizes[k][0];
        launches[k].grain = grains[k];
    }
    fx_parallel_batch(call, launches, n);
    for (k = 0; k < n; k++)
        for (i = 0; i < MOST; i++) CHECK(seen[k][i] == (i < sizes[k][0]));
}

int main(void) {
    int32_t threads, round;
    for (threads = 1; threads <= 7; threads += 2) {
        fx_model model;
        fx_call call;
        memset(&model, 0, sizeof model);
        model.pool = fx_pool_new(threads);
        call.model = &model;
        current = &call;
        CHECK(model.pool != NULL);
        for (round = 0; round < 60; round++) run_batch(&call, 1 + round % 8, (uint32_t)(round * 7 + threads));
        fx_pool_free(model.pool);
    }
    return 0;
}
