/* config.h - what a GGUF says about its architecture: one struct for every
 * transformer this engine runs.
 *
 * An architecture is one line of the table in config.c: its name (general.architecture, also
 * the prefix of its keys), the form of its rotation and the features that its tensors may have. */
#ifndef MODEL_CONFIG_H
#define MODEL_CONFIG_H
#include <stdbool.h>
#include "base/err.h"

struct gguf;

enum rope_scaling { ROPE_NONE, ROPE_LINEAR, ROPE_YARN };

struct arch {
    const char *name;
    bool rope_split;               /* pairs are (p, p + n/2) instead of (2p, 2p+1) */
};

/* Rotary embedding. Pair p turns by pos * theta_p with
 * theta_p = base^(-2p/n_rot) / factors[p], then scaled. */
struct rope_config {
    int n_rot;              /* floats of a head that rotate (even, <= k_dim); the rest stays */
    double base;
    enum rope_scaling scaling;
    double factor;          /* linear, yarn: positions shrink by it (>= 1 stretches the context) */
    int orig_ctx;           /* yarn: context length of the original training */
    double ext_factor, attn_factor, beta_fast, beta_slow;   /* yarn */
    const float *factors;   /* rope_freqs.weight [n_rot / 2], or NULL */
};

struct model_config {
    const struct arch *arch;
    char name[128];                /* general.name, or "" */
    int n_layers, n_embd, n_ff, n_vocab;
    int n_heads, n_kv_heads, k_dim, v_dim;
    int n_ctx_train;
    float rms_eps;
    float attn_scale;              /* scores are attn_scale * q.k */
    struct rope_config rope;
    /* The attention mode it was trained with (needle.s2.* keys), as --attn text; or "". */
    char attn[256];
};

/* What flags may override; fields at their "unset" value leave the file's word. */
struct rope_override {
    const char *scaling;           /* NULL: unset; "none", "linear", "yarn" */
    double factor;                 /* 0: unset */
    double freq_base;              /* 0: unset */
    int orig_ctx;                  /* 0: unset */
    double ext_factor, attn_factor, beta_fast, beta_slow;   /* < 0: unset */
};
#define ROPE_OVERRIDE_NONE { NULL, 0, 0, 0, -1, -1, -1, -1 }

/* Reads and checks every key; refuses an unknown architecture by name and lists the known ones. */
int config_read(struct model_config *out, const struct gguf *, const struct rope_override *,
                struct err *);

/* The angle a pair turns per position, freq [n_rot / 2], and the factor on cosine
 * and sine (1 but for yarn). */
void rope_freqs(const struct rope_config *, double *freq, double *magnitude);
/* cs [n_pairs][2]: cosine and sine of every pair at position pos. */
void rope_angles(const double *freq, double magnitude, int n_pairs, int pos, float *cs);

#endif
