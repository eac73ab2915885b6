/* chat.h - how a model wants a conversation spelled: a small table of known formats, chosen by
 * name or recognised from the template a GGUF carries (tokenizer.chat_template is a Jinja program;
 * its markers are looked for, it is not run). */
#ifndef MODEL_CHAT_H
#define MODEL_CHAT_H
#include <stddef.h>
#include "base/err.h"

struct chat_format {
    const char *name;
    const char *mark;                           /* what its Jinja template contains */
    const char *system[2], *user[2], *reply;    /* around system and user text; opens the reply */
    const char *end;                            /* closes the reply, before the next turn */
    int system_in_user;                         /* the system text is in the first user turn */
};

const struct chat_format *chat_by_name(const char *name);          /* NULL: unknown */
/* By the template text of a GGUF; NULL when none of the marks is in it. */
const struct chat_format *chat_recognise(const char *jinja);
void chat_names(char *buf, size_t size);                           /* "chatml, llama3, ..." */

/* The text that goes from the end of the last reply (or the beginning, when first) to
 * the start of the next one, malloc'd. system may be NULL; it counts for the first turn
 * only. NULL when memory lacks. */
char *chat_turn(const struct chat_format *, int first, const char *system, const char *user);

#endif
