/* The hand-written model as seen by the native tests. */
#include "../../runtime/native/abi.h"
#include "check.h"

fx_model *hand_open(const char *weights, uint64_t seed, int32_t threads);
void hand_close(fx_model *m);
int32_t hand_save(fx_model *m, const char *path);
int32_t hand_load(fx_model *m, const char *path);
const void *hand_get(fx_model *m, const char *name);
int32_t hand_set(fx_model *m, const char *name, const void *data, int64_t count);
int32_t hand_predict(fx_model *m, int64_t batch, const float *x, float *y);
int32_t hand_train_step(fx_model *m, int64_t batch, const float *x, const int32_t *y, float *loss);
int32_t hand_mix(fx_model *m, int64_t n, const float *a, const float *b, const _Bool *flag, const int64_t *ids,
                 float *sum, int64_t *doubled, float *total);
int32_t hand_half(fx_model *m, int64_t k, const uint16_t *h, const uint16_t *g, uint16_t *out);
