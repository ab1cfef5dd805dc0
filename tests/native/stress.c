/* Threads, models and forks at once.  argv[1]: a weights file of the hand-written model.
 * argv[2]: "fork" to fork as well. */
#define _GNU_SOURCE

#include "hand_model.h"

#include <pthread.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

enum { ROWS = 301, ROUNDS = 150, CALLERS = 3 };

static const char *weights;

static void predict_right(fx_model *m, int64_t rows, int64_t seed) {
    static const float w[12] = {1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12};
    float *x = malloc((size_t)rows * 4 * sizeof *x), *y = malloc((size_t)rows * 3 * sizeof *y);
    int64_t i, j, k;
    for (i = 0; i < rows * 4; i++) x[i] = (float)((i + seed) % 7);
    CHECK(hand_predict(m, rows, x, y) == 0);
    for (i = 0; i < rows; i++)
        for (j = 0; j < 3; j++) {
            float sum = 0;
            for (k = 0; k < 4; k++) sum += x[i * 4 + k] * w[j * 4 + k];
            CHECK(y[i * 3 + j] == sum);
        }
    free(x);
    free(y);
}

static void set_known(fx_model *m) {
    static const float w[12] = {1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12}, zero[3] = {0};
    CHECK(hand_set(m, "layer.weight", w, 12) == 0);
    CHECK(hand_set(m, "layer.bias", zero, 3) == 0);
}

static void *predict_often(void *m) {
    int i;
    for (i = 0; i < ROUNDS; i++) predict_right(m, 1 + i * 17 % ROWS, i);
    return NULL;
}

/* Weights are set to what they are: readers must never see a prepared tensor half made. */
static void *disturb(void *m) {
    int i;
    for (i = 0; i < ROUNDS / 3; i++) {
        set_known(m);
        usleep(100);
    }
    return NULL;
}

/* A model of one's own, opened, used and closed while others run. */
static void *open_often(void *unused) {
    int i;
    (void)unused;
    for (i = 0; i < ROUNDS / 5; i++) {
        fx_model *m = hand_open(weights, 1, 1 + i % 4);
        float x[8] = {0}, loss;
        int32_t y[2] = {0, 2}, wrong[2] = {0, 3};
        CHECK(m != NULL);
        CHECK(hand_train_step(m, 2, x, y, &loss) == 0);
        CHECK(hand_train_step(m, 2, x, wrong, &loss) == FX_ERR_VALUE);
        CHECK(strstr(fx_error(), "element 1 is 3") != NULL);
        set_known(m);
        predict_right(m, 40, i);
        hand_close(m);
    }
    return NULL;
}

/* A fork in the middle of it: the child predicts and trains with the same models. */
static void *fork_often(void *m) {
    int i, status;
    for (i = 0; i < 12; i++) {
        pid_t child = fork();
        CHECK(child >= 0);
        if (child == 0) {
            alarm(20);
            predict_right(m, ROWS, i);
            set_known(m);
            predict_right(m, ROWS, i);
            _exit(0);
        }
        CHECK(waitpid(child, &status, 0) == child);
        CHECK(WIFEXITED(status) && WEXITSTATUS(status) == 0);
    }
    return NULL;
}

int main(int count, char **words) {
    fx_model *shared, *other;
    pthread_t threads[CALLERS * 2 + 3];
    int i, n = 0;
    weights = words[1];
    shared = hand_open(weights, 0, 4);
    other = hand_open(weights, 0, 2);
    CHECK(shared != NULL && other != NULL);
    set_known(shared);
    set_known(other);
    predict_right(shared, ROWS, 0);
    for (i = 0; i < CALLERS; i++) {
        CHECK(pthread_create(&threads[n++], NULL, predict_often, shared) == 0);
        CHECK(pthread_create(&threads[n++], NULL, predict_often, other) == 0);
    }
    CHECK(pthread_create(&threads[n++], NULL, disturb, shared) == 0);
    CHECK(pthread_create(&threads[n++], NULL, open_often, NULL) == 0);
    if (count > 2 && strcmp(words[2], "fork") == 0)
        CHECK(pthread_create(&threads[n++], NULL, fork_often, shared) == 0);
    for (i = 0; i < n; i++) CHECK(pthread_join(threads[i], NULL) == 0);
    hand_close(shared);
    hand_close(other);
    return 0;
}
