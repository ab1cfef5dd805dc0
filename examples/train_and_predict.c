/* Trains the digits model and predicts with it from C: no Python, no framework.
 *
 *   fluxc compile examples/digits.py -o build/digits
 *   python -c "import numpy as np; d = np.load('examples/data/digits.npz'); \
 *       (d['x'].astype('<f4') / 16).tofile('build/x.f32'); d['y'].astype('<i4').tofile('build/y.i32')"
 *   cc -std=c99 -O2 examples/train_and_predict.c -Ibuild/digits -Lbuild/digits -ldigits \
 *       -Wl,-rpath,$PWD/build/digits -o build/train_and_predict
 *   build/train_and_predict build/digits/digits.safetensors build/x.f32 build/y.i32 build/trained.safetensors
 *
 * The last argument is where the trained weights go. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "digits.h"

enum { PIXELS = 64, CLASSES = 10, BATCH = 64, EPOCHS = 30 };

static void fail(const char *what, const char *why) {
    fprintf(stderr, "%s: %s\n", what, why);
    exit(1);
}

static void *allocate(size_t bytes) {
    void *memory = malloc(bytes);
    if (memory == NULL) fail("malloc", "out of memory");
    return memory;
}

/* The whole of a file, and its length in elements of `size` bytes. */
static void *read_file(const char *path, size_t size, long *count) {
    FILE *file = fopen(path, "rb");
    long bytes;
    void *data;
    if (file == NULL || fseek(file, 0, SEEK_END) != 0 || (bytes = ftell(file)) < 0) fail(path, "cannot be read");
    rewind(file);
    data = allocate((size_t)bytes);
    if (fread(data, 1, (size_t)bytes, file) != (size_t)bytes) fail(path, "cannot be read");
    fclose(file);
    *count = bytes / (long)size;
    return data;
}

static void shuffle(long *order, long n) {
    static unsigned long long state = 1;
    long i, k, swapped;
    for (i = n - 1; i > 0; i--) {
        state = state * 6364136223846793005ull + 1442695040888963407ull;
        k = (long)((state >> 33) % (unsigned long long)(i + 1));
        swapped = order[i];
        order[i] = order[k];
        order[k] = swapped;
    }
}

/* Images and labels order[0..n-1], side by side. */
static void gather(const float *x, const int32_t *y, const long *order, long n, float *bx, int32_t *by) {
    long i;
    for (i = 0; i < n; i++) {
        memcpy(bx + i * PIXELS, x + order[i] * PIXELS, PIXELS * sizeof *x);
        by[i] = y[order[i]];
    }
}

static void train(digits_t *m, const float *x, const int32_t *y, long *order, long n) {
    float *bx = allocate(BATCH * PIXELS * sizeof *bx), loss, total;
    int32_t *by = allocate(BATCH * sizeof *by);
    long at, rows;
    int epoch;
    for (epoch = 1; epoch <= EPOCHS; epoch++) {
        shuffle(order, n);
        for (at = 0, total = 0; at < n; at += rows) {
            rows = n - at < BATCH ? n - at : BATCH;
            gather(x, y, order + at, rows, bx, by);
            if (digits_train_step(m, rows, bx, by, &loss) != 0) fail("train_step", digits_error());
            total += loss * (float)rows;
        }
        if (epoch % 10 == 0) printf("epoch %d, loss %.4f\n", epoch, (double)(total / (float)n));
    }
    free(bx);
    free(by);
}

/* The share of images whose likeliest class is their label. */
static double accuracy(digits_t *m, const float *x, const int32_t *y, const long *order, long n) {
    float *bx = allocate((size_t)n * PIXELS * sizeof *bx), *p = allocate((size_t)n * CLASSES * sizeof *p);
    int32_t *by = allocate((size_t)n * sizeof *by);
    long i, right = 0;
    int c, best;
    gather(x, y, order, n, bx, by);
    if (digits_predict(m, n, bx, p) != 0) fail("predict", digits_error());
    for (i = 0; i < n; i++) {
        for (c = 1, best = 0; c < CLASSES; c++)
            if (p[i * CLASSES + c] > p[i * CLASSES + best]) best = c;
        right += best == by[i];
    }
    free(bx);
    free(p);
    free(by);
    return (double)right / (double)n;
}

int main(int count, char **words) {
    digits_t *m;
    float *x;
    int32_t *y;
    long pixels, n, i, held_out, *order;
    double share;
    if (count != 5) fail(words[0], "expected WEIGHTS X.f32 Y.i32 TRAINED; the head of the source says how to make them");
    x = read_file(words[2], sizeof *x, &pixels);
    y = read_file(words[3], sizeof *y, &n);
    if (n < 5 || pixels != n * PIXELS) fail(words[2], "does not fit the labels");
    m = digits_open(words[1], 0, 0);
    if (m == NULL) fail("open", digits_error());
    order = allocate((size_t)n * sizeof *order);
    for (i = 0; i < n; i++) order[i] = i;
    shuffle(order, n);
    held_out = n / 5;
    train(m, x, y, order + held_out, n - held_out);
    share = accuracy(m, x, y, order, held_out);
    printf("held-out accuracy: %.1f%%\n", 100 * share);
    if (digits_save(m, words[4]) != 0) fail("save", digits_error());
    digits_close(m);
    free(order);
    free(x);
    free(y);
    return share >= 0.96 ? 0 : 1;
}
