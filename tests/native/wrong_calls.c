/* Wrong calls from C: each returns its code, names the argument, and touches nothing.
 * argv[1]: a weights file; argv[2]: a path that can be written. */
#include "hand_model.h"

#include <string.h>

static int kinds;

static void refused(int32_t status, int32_t expected, const char *words) {
    kinds++;
    if (status != expected || strstr(fx_error(), words) == NULL) {
        fprintf(stderr, "kind %d: status %d instead of %d, or no '%s' in: %s\n", kinds, (int)status, (int)expected,
                words, fx_error());
        exit(1);
    }
}

int main(int count, char **words) {
    fx_model *m = hand_open(words[1], 0, 2);
    float x[16] = {0}, y[16], loss = 0, *own;
    float sum[8], total;
    int64_t ids[8] = {0}, doubled[8];
    uint16_t half[64] = {0}, out[64];
    int32_t labels[4] = {0, 1, 2, 0};
    _Bool flag = 0;
    char odd[80];
    (void)count;
    CHECK(m != NULL);
    memset(y, 77, sizeof y);
    /* opening */
    refused(hand_open(NULL, 0, 1) == NULL, 1, "weights is NULL");
    refused(hand_open(words[1], 0, -1) == NULL, 1, "threads must lie between");
    refused(hand_open(words[1], 0, 5000) == NULL, 1, "threads must lie between");
    refused(hand_open("/nowhere/at/all", 0, 1) == NULL, 1, "cannot be opened");
    refused(hand_open("/", 0, 1) == NULL, 1, "not a regular file");
    refused(hand_open("/dev/zero", 0, 1) == NULL, 1, "not a regular file");
    /* pointers */
    refused(hand_predict(NULL, 1, x, y), FX_ERR_ARGUMENT, "the model is NULL");
    refused(hand_predict(m, 1, NULL, y), FX_ERR_ARGUMENT, "predict: argument x is NULL");
    refused(hand_predict(m, 1, x, NULL), FX_ERR_ARGUMENT, "predict: argument y is NULL");
    refused(hand_train_step(m, 4, x, labels, NULL), FX_ERR_ARGUMENT, "argument loss is NULL");
    refused(hand_predict(m, 1, (const float *)(const void *)(odd + 1), y), FX_ERR_ARGUMENT, "x is not aligned");
    refused(hand_predict(m, 1, x, (float *)(void *)(odd + 3)), FX_ERR_ARGUMENT, "y is not aligned");
    refused(hand_predict(m, 1, x, x), FX_ERR_ARGUMENT, "output y overlaps argument x");
    refused(hand_predict(m, 2, x, x + 7), FX_ERR_ARGUMENT, "output y overlaps argument x");
    refused(hand_mix(m, 2, x, x + 4, &flag, ids, sum, doubled, sum + 1), FX_ERR_ARGUMENT, "overlaps argument sum");
    own = (float *)hand_get(m, "layer.weight");
    refused(hand_predict(m, 1, x, own), FX_ERR_ARGUMENT, "y lies in the model's own parameters");
    refused(hand_train_step(m, 1, own, labels, &loss), FX_ERR_ARGUMENT, "x lies in the model's own parameters");
    CHECK(hand_predict(m, 1, own, y) == 0); /* reading them is fine where nothing changes */
    /* sizes */
    refused(hand_predict(m, -1, x, y), FX_ERR_SIZE, "size batch must lie between 0 and");
    refused(hand_predict(m, INT64_MIN, x, y), FX_ERR_SIZE, "batch must lie between");
    refused(hand_predict(m, INT64_MAX, x, y), FX_ERR_SIZE, "batch must lie between");
    refused(hand_predict(m, (int64_t)1 << 62, x, y), FX_ERR_SIZE, "more elements than memory can hold");
    refused(hand_predict(m, (int64_t)1 << 60, x, y), FX_ERR_SIZE, "more elements than memory can hold");
    refused(hand_half(m, 0, half, half, out), FX_ERR_SIZE, "size k must lie between 2 and 64, got 0");
    refused(hand_half(m, 66, half, half, out), FX_ERR_SIZE, "got 66");
    refused(hand_half(m, 7, half, half, out), FX_ERR_SIZE, "size k must be a multiple of 2, got 7");
    CHECK(hand_predict(m, 0, NULL, NULL) == 0);
    /* values */
    labels[2] = 3;
    refused(hand_train_step(m, 4, x, labels, &loss), FX_ERR_VALUE, "argument y: element 2 is 3, an index must lie between 0 and 2");
    labels[2] = -1;
    refused(hand_train_step(m, 4, x, labels, &loss), FX_ERR_VALUE, "element 2 is -1");
    ids[3] = 9;
    refused(hand_mix(m, 2, x, x + 4, &flag, ids, sum, doubled, &total), FX_ERR_VALUE, "argument ids: element 3 is 9");
    ids[3] = -4;
    CHECK(hand_mix(m, 2, x, x + 4, &flag, ids, sum, doubled, &total) == 0);
    memset(&flag, 2, 1);
    refused(hand_mix(m, 2, x, x + 4, &flag, ids, sum, doubled, &total), FX_ERR_VALUE, "a bool is 0 or 1");
    /* names and stored tensors */
    refused(hand_get(m, "layer.weights") == NULL, 1, "nothing is named layer.weights");
    refused(hand_get(m, NULL) == NULL, 1, "the name is NULL");
    refused(hand_get(NULL, "layer.weight") == NULL, 1, "the model is NULL");
    refused(hand_set(m, "nothing", x, 1), FX_ERR_ARGUMENT, "nothing is named nothing");
    refused(hand_set(m, NULL, x, 1), FX_ERR_ARGUMENT, "the name is NULL");
    refused(hand_set(NULL, "layer.bias", x, 3), FX_ERR_ARGUMENT, "the model is NULL");
    refused(hand_set(m, "layer.bias", NULL, 3), FX_ERR_ARGUMENT, "data for layer.bias is NULL");
    refused(hand_set(m, "layer.bias", x, 4), FX_ERR_SIZE, "layer.bias has 3 elements, got 4");
    refused(hand_set(m, "layer.bias", x, -3), FX_ERR_SIZE, "got -3");
    x[1] = (float)(1e30 * 1e30);
    refused(hand_set(m, "layer.bias", x, 3), FX_ERR_VALUE, "layer.bias: element 1 is not a finite number");
    refused(hand_set(m, "optimizer.train_step.lr", x + 1, 1), FX_ERR_VALUE, "is not a finite number");
    /* files */
    refused(hand_save(m, NULL), FX_ERR_ARGUMENT, "the path is NULL");
    refused(hand_save(NULL, words[2]), FX_ERR_ARGUMENT, "the model is NULL");
    refused(hand_save(m, "/nowhere/at/all"), FX_ERR_FILE, "cannot be written");
    refused(hand_load(m, NULL), FX_ERR_ARGUMENT, "the path is NULL");
    refused(hand_load(NULL, words[1]), FX_ERR_ARGUMENT, "the model is NULL");
    refused(hand_load(m, "/nowhere/at/all"), FX_ERR_FILE, "cannot be opened");
    CHECK(hand_save(m, words[2]) == 0 && hand_load(m, words[2]) == 0);
    hand_close(NULL);
    hand_close(m);
    printf("%d kinds of wrong calls were refused\n", kinds);
    return kinds >= 40 ? 0 : 1;
}
