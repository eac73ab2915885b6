#include "tools/common/needle_rows.h"
#include <cjson/cJSON.h>
#include <errno.h>
#include <fcntl.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

/* ---- one row and its JSON -------------------------------------------------------------------- */

/* Three decimals; null for what was not measured. */
static void put_measure(cJSON *j, const char *key, double v) {
    if (isfinite(v) && v >= 0) cJSON_AddNumberToObject(j, key, round(v * 1e3) / 1e3);
    else cJSON_AddNullToObject(j, key);
}

static cJSON *to_json(const struct row *r) {
    cJSON *j = cJSON_CreateObject();
    cJSON_AddStringToObject(j, "model", r->model);
    cJSON_AddNumberToObject(j, "context_length", r->context_length);
    cJSON_AddNumberToObject(j, "depth_percent", r->depth_percent);
    cJSON_AddStringToObject(j, "version", r->version);
    cJSON_AddStringToObject(j, "needle", r->needle);
    cJSON_AddItemToObject(j, "reference", cJSON_CreateStringArray(r->reference, r->n_references));
    cJSON_AddStringToObject(j, "model_response", r->response);
    cJSON_AddNumberToObject(j, "score", r->score);
    put_measure(j, "test_duration_seconds", r->seconds);
    cJSON_AddStringToObject(j, "test_timestamp_utc", r->timestamp);
    cJSON_AddStringToObject(j, "attn", r->attn);
    cJSON_AddStringToObject(j, "attn_params", r->attn_params);
    cJSON_AddStringToObject(j, "type_k", r->type_k);
    cJSON_AddStringToObject(j, "type_v", r->type_v);
    cJSON_AddNumberToObject(j, "seed", r->seed);
    cJSON_AddNumberToObject(j, "kv_bytes", r->kv_bytes);
    put_measure(j, "prefill_tps", r->prefill_tps);
    put_measure(j, "decode_tps", r->decode_tps);
    put_measure(j, "keys_read_per_token", r->keys_read);
    put_measure(j, "prefill_keys_read_per_token", r->prefill_keys_read);
    cJSON_AddNumberToObject(j, "prompt_tokens", r->prompt_tokens);
    cJSON_AddNumberToObject(j, "prefill_tokens", r->prefill_tokens);
    cJSON_AddNumberToObject(j, "predicted_tokens", r->predicted_tokens);
    return j;
}

static const char *text_of(const cJSON *j, const char *key) {
    return cJSON_GetStringValue(cJSON_GetObjectItemCaseSensitive(j, key));
}

/* A number within min..max, or `missing` when there is none. */
static double number_of(const cJSON *j, const char *key, double min, double max, double missing) {
    const cJSON *v = cJSON_GetObjectItemCaseSensitive(j, key);
    return cJSON_IsNumber(v) && v->valuedouble >= min && v->valuedouble <= max
           ? v->valuedouble : missing;
}

/* Whether the object is a row; *r then points into it. */
static bool from_json(cJSON *j, struct row *r) {
    *r = (struct row){
        .model = text_of(j, "model"), .version = text_of(j, "version"),
        .attn = text_of(j, "attn"), .attn_params = text_of(j, "attn_params"),
        .type_k = text_of(j, "type_k"), .type_v = text_of(j, "type_v"),
        .needle = text_of(j, "needle"), .response = text_of(j, "model_response"),
        .timestamp = text_of(j, "test_timestamp_utc"),
        .context_length = (int)number_of(j, "context_length", 1, 1 << 30, 0),
        .seed = (int)number_of(j, "seed", 0, 1 << 30, -1),
        .depth_percent = number_of(j, "depth_percent", 0, 100, -1),
        .score = number_of(j, "score", 0, 1, -1),
        .seconds = number_of(j, "test_duration_seconds", 0, 1e12, 0),
        .kv_bytes = number_of(j, "kv_bytes", 0, 1e18, 0),
        .prefill_tps = number_of(j, "prefill_tps", 0, 1e12, -1),
        .decode_tps = number_of(j, "decode_tps", 0, 1e12, -1),
        .keys_read = number_of(j, "keys_read_per_token", 0, 1e12, -1),
        .prefill_keys_read = number_of(j, "prefill_keys_read_per_token", 0, 1e12, -1),
        .prompt_tokens = (int)number_of(j, "prompt_tokens", 0, 1 << 30, 0),
        .prefill_tokens = (int)number_of(j, "prefill_tokens", 0, 1 << 30, 0),
        .predicted_tokens = (int)number_of(j, "predicted_tokens", 0, 1 << 30, 0), .json = j,
    };
    return r->model && r->version && r->attn && r->attn_params && r->type_k && r->type_v &&
           r->context_length && r->seed >= 0 && r->depth_percent >= 0 && r->score >= 0;
}

/* ---- rows in memory -------------------------------------------------------------------------- */

/* Takes the object. */
static int keep(struct rows *s, cJSON *j, const struct row *r, struct err *err) {
    if (s->n == s->room) {
        const int room = s->room ? s->room * 2 : 64;
        struct row *bigger = realloc(s->row, (size_t)room * sizeof *bigger);
        if (!bigger) { cJSON_Delete(j); return fail(err, "no memory for %d rows", room); }
        s->row = bigger, s->room = room;
    }
    s->row[s->n++] = *r;
    return 0;
}

const struct row *rows_find(const struct rows *s, const struct row *w) {
    for (int i = 0; i < s->n; i++) {
        const struct row *r = &s->row[i];
        if (r->context_length == w->context_length && r->seed == w->seed &&
            fabs(r->depth_percent - w->depth_percent) < 1e-6 && !strcmp(r->attn, w->attn) &&
            !strcmp(r->attn_params, w->attn_params) && !strcmp(r->type_k, w->type_k) &&
            !strcmp(r->type_v, w->type_v) && !strcmp(r->version, w->version) &&
            !strcmp(r->model, w->model))
            return r;
    }
    return NULL;
}

void rows_close(struct rows *s) {
    for (int i = 0; i < s->n; i++) cJSON_Delete(s->row[i].json);
    free(s->row);
    if (s->fd >= 0) close(s->fd);
    *s = (struct rows)ROWS_NONE;
}

/* ---- rows in a file -------------------------------------------------------------------------- */

/* A line without its newline. 1: kept; 0: not JSON; -1 with *err: not a row, or no memory. */
static int take_line(struct rows *s, const char *path, int number, const char *p, size_t n,
                     struct err *err) {
    struct row r;
    cJSON *j = cJSON_ParseWithLength(p, n);
    if (!j) return 0;
    if (!from_json(j, &r)) {
        cJSON_Delete(j);
        return fail(err, "%s:%d: JSON, but not a row of needle (wanted model, attn, "
                         "context_length, score, ...)", path, number);
    }
    return keep(s, j, &r, err) ? -1 : 1;
}

/* All of text[0..n-1]; *good is where the last good line ends. */
static int take_lines(struct rows *s, const char *path, const char *text, size_t n, size_t *good,
                      struct err *err) {
    *good = 0;
    for (int number = 1; *good < n; number++) {
        const char *p = text + *good, *end = memchr(p, '\n', n - *good);
        const size_t len = end ? (size_t)(end - p) : n - *good;
        if (len) {
            const int rc = take_line(s, path, number, p, len, err);
            if (rc < 0) return -1;
            if (!rc && end)
                return fail(err, "%s:%d: got '%.24s...', wanted a row of JSON", path, number, p);
            if (!rc) { s->cut = true; return 0; }
        }
        *good += len + (end != NULL);
    }
    return 0;
}

static int read_all(int fd, const char *path, char **out, size_t *n, struct err *err) {
    struct stat st;
    if (fstat(fd, &st)) return fail(err, "%s: %s", path, strerror(errno));
    if (!S_ISREG(st.st_mode)) return fail(err, "%s: not a regular file", path);
    char *p = malloc((size_t)st.st_size + 1);
    if (!p) return fail(err, "%s: no memory for %lld bytes", path, (long long)st.st_size);
    for (*n = 0; *n < (size_t)st.st_size;) {
        const ssize_t got = pread(fd, p + *n, (size_t)st.st_size - *n, (off_t)*n);
        if (got < 0 && errno == EINTR) continue;
        if (got < 0) { free(p); return fail(err, "%s: %s", path, strerror(errno)); }
        if (!got) break;
        *n += (size_t)got;
    }
    p[*n] = 0;
    *out = p;
    return 0;
}

static int write_all(int fd, const char *path, const char *p, size_t n, struct err *err) {
    while (n) {
        const ssize_t put = write(fd, p, n);
        if (put < 0 && errno == EINTR) continue;
        if (put < 0) return fail(err, "%s: %s", path, strerror(errno));
        p += put, n -= (size_t)put;
    }
    return 0;
}

int rows_load(struct rows *s, const char *path, struct err *err) {
    char *text = NULL;
    size_t n, good;
    const int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0) return fail(err, "%s: %s", path, strerror(errno));
    const int rc = read_all(fd, path, &text, &n, err) || take_lines(s, path, text, n, &good, err);
    free(text);
    close(fd);
    return rc ? -1 : 0;
}

int rows_open(struct rows *s, const char *path, struct err *err) {
    char *text = NULL;
    size_t n, good;
    int rc = -1;
    s->path = path;
    s->fd = open(path, O_RDWR | O_CREAT | O_APPEND | O_CLOEXEC, 0666);
    if (s->fd < 0) return fail(err, "%s: %s", path, strerror(errno));
    flock(s->fd, LOCK_EX);         /* without locks (some network folders): one process at a time */
    if (read_all(s->fd, path, &text, &n, err) || take_lines(s, path, text, n, &good, err))
        goto done;
    if (good < n && ftruncate(s->fd, (off_t)good)) {
        fail(err, "%s: %s", path, strerror(errno));
        goto done;
    }
    if (good == n && n && text[n - 1] != '\n' && write_all(s->fd, path, "\n", 1, err)) goto done;
    rc = 0;
done:
    flock(s->fd, LOCK_UN);
    free(text);
    return rc;
}

static int append(struct rows *s, const cJSON *j, struct err *err) {
    char *text = cJSON_PrintUnformatted(j);
    if (!text) return fail(err, "no memory for a row");
    size_t n = strlen(text);
    text[n++] = '\n';                              /* in the place of the NUL */
    flock(s->fd, LOCK_EX);
    const int rc = write_all(s->fd, s->path, text, n, err);
    flock(s->fd, LOCK_UN);
    cJSON_free(text);
    return rc;
}

int rows_add(struct rows *s, const struct row *r, struct err *err) {
    struct row kept;
    cJSON *j = to_json(r);
    if (!from_json(j, &kept)) { cJSON_Delete(j); return fail(err, "no memory for a row"); }
    if (s->fd >= 0 && append(s, j, err)) { cJSON_Delete(j); return -1; }
    return keep(s, j, &kept, err);
}
