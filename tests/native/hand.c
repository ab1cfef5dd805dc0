/* A model written by hand behind the descriptor that the compiler emits: the runtime, the binding and
 * the writer of artifacts are tested with it, without the compiler. */
#include "abi.h"

#include <string.h>

#define PUBLIC __attribute__((visibility("default")))

enum { W, B, MOMENTUM, MEAN, LR, SEED, STEP };

static const int64_t SHAPE_W[] = {3, 4}, SHAPE_3[] = {3};

static const fx_storage_desc STORAGES[] = {
    {"layer.weight", FX_F32, FX_PARAMETER, 2, 1, SHAPE_W, 12, 0.0, 1, 0},
    {"layer.bias", FX_F32, FX_PARAMETER, 1, 1, SHAPE_3, 3, 0.5, 1, 0},
    {"optimizer.train_step.momentum.layer.bias", FX_F32, FX_OPTIMIZER, 1, 0, SHAPE_3, 3, 0.25, 0, 0},
    {"norm.mean", FX_F64, FX_STATE, 1, 0, SHAPE_3, 3, 1.0, 1, 0},
    {"optimizer.train_step.lr", FX_F32, FX_HYPER, 0, 0, NULL, 1, 0.125, 0, 0},
    {"random.seed", FX_I64, FX_SEED, 0, 0, NULL, 1, 0.0, 0, 0},
    {"random.step", FX_I64, FX_STEP, 0, 0, NULL, 1, 0.0, 0, 0},
};

/* ---- predict(x f32[batch, 4]) -> f32[batch, 3]: x @ weight.T + bias, through a prepared transpose ---- */

static int64_t no_arena(const int64_t *symbols) {
    (void)symbols;
    return 0;
}

static void predict_counts(const int64_t *s, int64_t *counts) {
    counts[0] = __builtin_mul_overflow(s[0], (int64_t)4, &counts[0]) ? -1 : s[0] * 4;
    counts[1] = __builtin_mul_overflow(s[0], (int64_t)3, &counts[1]) ? -1 : s[0] * 3;
}

static void predict_prepare(fx_call *call, void *const *storages, void *const *prepared, char *arena) {
    const float *w = storages[0];
    float *t = prepared[0];
    int i, k;
    (void)call;
    memset(arena, 1, 64); /* it is ours */
    for (i = 0; i < 3; i++)
        for (k = 0; k < 4; k++) t[k * 3 + i] = w[i * 4 + k];
}

static void predict_kernel(void *const *buffers, const int64_t *sizes, int64_t lo, int64_t hi) {
    const float *x = buffers[0], *t = buffers[1], *bias = buffers[2];
    float *y = buffers[3];
    int64_t i;
    int j, k;
    (void)sizes;
    for (i = lo; i < hi; i++)
        for (j = 0; j < 3; j++) {
            float sum = bias[j];
            for (k = 0; k < 4; k++) sum += x[i * 4 + k] * t[k * 3 + j];
            y[i * 3 + j] = sum;
        }
}

static void predict_run(fx_call *call, const int64_t *s, void *const *args, void *const *storages,
                        void *const *prepared, char *arena) {
    void *buffers[4];
    (void)arena;
    buffers[0] = args[0];
    buffers[1] = prepared[0];
    buffers[2] = storages[1];
    buffers[3] = args[1];
    fx_parallel(call, predict_kernel, buffers, s, s[0], 2);
}

/* ---- train_step(x f32[batch, 4], y i32[batch]) -> f32[]: bias += lr for every label seen ---- */

static void train_counts(const int64_t *s, int64_t *counts) {
    predict_counts(s, counts);
    counts[1] = s[0];
    counts[2] = 1;
}

static int64_t train_arena(const int64_t *s) { return s[0] > INT64_MAX / 16 ? -1 : 16 * s[0]; }

static void train_run(fx_call *call, const int64_t *s, void *const *args, void *const *storages,
                      void *const *prepared, char *arena) {
    const float *x = args[0], *lr = storages[3];
    const int32_t *y = args[1];
    float *bias = storages[1], *momentum = storages[2], *w = storages[0], loss = 0;
    int64_t *step = storages[4], i;
    (void)call, (void)prepared;
    memset(arena, 255, (size_t)(16 * s[0]));
    for (i = 0; i < s[0]; i++) {
        bias[y[i]] += *lr;
        momentum[y[i]] += 1;
        w[y[i]] += 1;
        loss += x[i * 4];
    }
    ++*step;
    memcpy(args[2], &loss, sizeof loss);
}

/* ---- mix(a f32[n], b f32[n + 1], flag bool[], ids i64[2*n]) -> {"sum": f32[n], "all": (i64[2*n], f32[])} ---- */

static void mix_counts(const int64_t *s, int64_t *counts) {
    counts[0] = counts[4] = s[0];
    counts[1] = s[0] == INT64_MAX ? -1 : s[0] + 1;
    counts[2] = counts[6] = 1;
    counts[3] = counts[5] = s[0] > INT64_MAX / 2 ? -1 : 2 * s[0];
}

static void mix_run(fx_call *call, const int64_t *s, void *const *args, void *const *storages,
                    void *const *prepared, char *arena) {
    const float *a = args[0], *b = args[1];
    const unsigned char *flag = args[2];
    const int64_t *ids = args[3];
    float *sum = args[4], total = 0;
    int64_t *doubled = args[5], i;
    (void)call, (void)storages, (void)prepared, (void)arena;
    for (i = 0; i < s[0]; i++) total += sum[i] = a[i] + (*flag ? b[i + 1] : b[i]);
    for (i = 0; i < 2 * s[0]; i++) doubled[i] = 2 * ids[i];
    memcpy(args[6], &total, sizeof total);
}

/* ---- half(h f16[k], g bf16[k], k in 2..64 by 2) -> bf16[k]: copies g ---- */

static void half_counts(const int64_t *s, int64_t *counts) { counts[0] = counts[1] = counts[2] = s[0]; }

static void half_run(fx_call *call, const int64_t *s, void *const *args, void *const *storages,
                     void *const *prepared, char *arena) {
    (void)call, (void)storages, (void)prepared, (void)arena;
    memcpy(args[2], args[1], (size_t)(2 * s[0]));
}

static const fx_symbol_desc BATCH[] = {{"batch", 0, (int64_t)1 << 62, 1}}, N[] = {{"n", 0, (int64_t)1 << 62, 1}},
                            K[] = {{"k", 2, 64, 2}};
static const fx_arg_desc PREDICT_ARGS[] = {{"x", FX_F32, 2, 0, 0}, {"y", FX_F32, 2, 0, 0}};
static const fx_arg_desc TRAIN_ARGS[] = {{"x", FX_F32, 2, 0, 0}, {"y", FX_I32, 1, 0, 3}, {"loss", FX_F32, 0, 0, 0}};
static const fx_arg_desc MIX_ARGS[] = {{"a", FX_F32, 1, 0, 0},   {"b", FX_F32, 1, 0, 0},       {"flag", FX_BOOL, 0, 0, 0},
                                       {"ids", FX_I64, 1, -4, 9}, {"sum", FX_F32, 1, 0, 0},     {"doubled", FX_I64, 1, 0, 0},
                                       {"total", FX_F32, 0, 0, 0}};
static const fx_arg_desc HALF_ARGS[] = {{"h", FX_F16, 1, 0, 0}, {"g", FX_BF16, 1, 0, 0}, {"out", FX_BF16, 1, 0, 0}};
static const int32_t PREDICT_STORAGES[] = {W, B}, TRAIN_STORAGES[] = {W, B, MOMENTUM, LR, STEP};
static const int64_t PREDICT_PREPARED[] = {48};

static const fx_entry_desc ENTRIES[] = {
    {"predict", 1, 1, 1, 1, 2, 0, BATCH, PREDICT_ARGS, PREDICT_STORAGES, PREDICT_PREPARED, 64, predict_counts, no_arena,
     predict_prepare, predict_run},
    {"train_step", 1, 2, 1, 0, 5, 1, BATCH, TRAIN_ARGS, TRAIN_STORAGES, NULL, 0, train_counts, train_arena, NULL,
     train_run},
    {"mix", 1, 4, 3, 0, 0, 0, N, MIX_ARGS, NULL, NULL, 0, mix_counts, no_arena, NULL, mix_run},
    {"half", 1, 2, 1, 0, 0, 0, K, HALF_ARGS, NULL, NULL, 0, half_counts, no_arena, NULL, half_run},
};

static const fx_model_desc MODEL = {"hand", "test", 7, 4, STORAGES, ENTRIES};

PUBLIC fx_model *hand_open(const char *weights, uint64_t seed, int32_t threads) {
    return fx_open(&MODEL, weights, seed, threads);
}
PUBLIC void hand_close(fx_model *m) { fx_close(m); }
PUBLIC int32_t hand_save(fx_model *m, const char *path) { return fx_save(m, path); }
PUBLIC int32_t hand_load(fx_model *m, const char *path) { return fx_load(m, path); }
PUBLIC const char *hand_error(void) { return fx_error(); }
PUBLIC const void *hand_get(fx_model *m, const char *name) { return fx_storage(m, name); }
PUBLIC int32_t hand_set(fx_model *m, const char *name, const void *data, int64_t count) {
    return fx_set(m, name, data, count);
}
PUBLIC int32_t hand_predict(fx_model *m, int64_t batch, const float *x, float *y) {
    const void *args[2];
    args[0] = x, args[1] = y;
    return fx_run(m, 0, &batch, (void *const *)args);
}
PUBLIC int32_t hand_train_step(fx_model *m, int64_t batch, const float *x, const int32_t *y, float *loss) {
    const void *args[3];
    args[0] = x, args[1] = y, args[2] = loss;
    return fx_run(m, 1, &batch, (void *const *)args);
}
PUBLIC int32_t hand_mix(fx_model *m, int64_t n, const float *a, const float *b, const _Bool *flag, const int64_t *ids,
                        float *sum, int64_t *doubled, float *total) {
    const void *args[7];
    args[0] = a, args[1] = b, args[2] = flag, args[3] = ids, args[4] = sum, args[5] = doubled, args[6] = total;
    return fx_run(m, 2, &n, (void *const *)args);
}
PUBLIC int32_t hand_half(fx_model *m, int64_t k, const uint16_t *h, const uint16_t *g, uint16_t *out) {
    const void *args[3];
    args[0] = h, args[1] = g, args[2] = out;
    return fx_run(m, 3, &k, (void *const *)args);
}
