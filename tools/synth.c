/* synth - writes GGUF models nobody trained: random weights of a real shape, or the constructed
 * retrieval model. */
#include <stdio.h>
#include <string.h>
#include "base/flags.h"
#include "tools/common/synth_induction.h"
#include "tools/common/synth_random.h"

static const char usage[] =
    "usage: synth OUT.gguf --shape NAME [--type TYPE] [--seed N] ...\n"
    "Writes a model nobody trained. --shape induction: constructed weights that copy "
    "what followed\n"
    "the last four tokens earlier in the text (see tools/common/synth_induction.h). Any other\n"
    "shape: random weights of a real model's size.\n\n";

int main(int argc, char **argv) {
    const char *shape_name = NULL, *type_name = NULL, *out[1] = { NULL };
    int seed = 1, layers = 0, vocab = 0, ctx = 0, lookups = 2, n_out = 0;
    bool help = false;
    const struct flag flags[] = {
        { "--shape", FLAG_STR, &shape_name, "NAME",
          "induction, or a name from the list below", 0, 0 },
        { "--type", FLAG_STR, &type_name, "TYPE",
          "storage type or mix of types (default Q8_0)", 0, 0 },
        { "-s --seed", FLAG_INT, &seed, "N", "of the random numbers (default 1)", 0, 2147483647 },
        { "-c --ctx-size", FLAG_INT, &ctx, "N",
          "context length in the file (default: the shape's own)", 16, 1 << 24 },
        { "--layers", FLAG_INT, &layers, "N", "random weights: so many layers instead", 1, 4096 },
        { "--vocab", FLAG_INT, &vocab, "N",
          "random weights: so many tokens instead", 1024, 1 << 22 },
        { "--lookups", FLAG_INT, &lookups, "N", "induction: layers that look up (default 2)",
          INDUCTION_LOOKUPS_MIN, INDUCTION_LOOKUPS_MAX },
        { "-h --help", FLAG_ON, &help, NULL, "this text", 0, 0 },
        { NULL, FLAG_ON, NULL, NULL, NULL, 0, 0 } };
    struct err err;
    if (flags_parse(flags, argc, argv, out, 1, &n_out, &err)) goto wrong;
    if (help) {
        fputs(usage, stdout);
        flags_help(flags, stdout);
        printf("\nShapes: induction, %s\n\nTypes:\n", shape_names());
        recipe_list(stdout);
        return 0;
    }
    const struct recipe *recipe = recipe_by_name(type_name ? type_name : "Q8_0");
    bool induction = shape_name && !strcmp(shape_name, "induction");
    const struct synth_shape *shape = shape_name ? shape_find(shape_name) : NULL;
    if (!n_out) fail(&err, "no OUT.gguf given");
    else if (!shape_name)
        fail(&err, "no --shape given, wanted one of: induction, %s", shape_names());
    else if (!induction && !shape)
        fail(&err, "--shape: got '%s', wanted one of: induction, %s", shape_name, shape_names());
    else if (!recipe)
        fail(&err, "--type: got '%s', wanted Q4_K_M, Q8_0, ... (--help lists them)", type_name);
    else {
        int rc;
        if (induction) {
            struct induction_options o = { .n_ctx = ctx ? ctx : 131072, .n_lookups = lookups,
                                           .seed = (uint64_t)seed };
            rc = synth_induction(out[0], &o, recipe, &err);
        } else {
            struct synth_shape s = *shape;
            if (layers) s.n_layers = layers;
            if (vocab) s.n_vocab = vocab;
            if (ctx) s.n_ctx = ctx;
            rc = synth_random(out[0], &s, recipe, (uint64_t)seed, &err);
        }
        if (!rc) return 0;
        fprintf(stderr, "synth: %s\n", err.msg);
        return 1;
    }
wrong:
    fprintf(stderr, "synth: %s\n", err.msg);
    return 2;
}
