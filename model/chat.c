#include "model/chat.h"
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* A mark that others contain too comes after theirs. */
static const struct chat_format formats[] = {
    { "chatml", "<|im_start|>",
      { "<|im_start|>system\n", "<|im_end|>\n" }, { "<|im_start|>user\n", "<|im_end|>\n" },
      "<|im_start|>assistant\n", "<|im_end|>\n", 0 },
    { "llama3", "<|start_header_id|>",
      { "<|start_header_id|>system<|end_header_id|>\n\n", "<|eot_id|>" },
      { "<|start_header_id|>user<|end_header_id|>\n\n", "<|eot_id|>" },
      "<|start_header_id|>assistant<|end_header_id|>\n\n", "<|eot_id|>", 0 },
    { "gemma", "<start_of_turn>",
      { "", "\n\n" }, { "<start_of_turn>user\n", "<end_of_turn>\n" },
      "<start_of_turn>model\n", "<end_of_turn>\n", 1 },
    { "phi3", "<|end|>", { "<|system|>\n", "<|end|>\n" }, { "<|user|>\n", "<|end|>\n" },
      "<|assistant|>\n", "<|end|>\n", 0 },
    { "zephyr", "<|user|>", { "<|system|>\n", "</s>\n" }, { "<|user|>\n", "</s>\n" },
      "<|assistant|>\n", "</s>\n", 0 },
    { "llama2", "<<SYS>>", { "<<SYS>>\n", "\n<</SYS>>\n\n" }, { "[INST] ", " [/INST]" },
      "", "</s><s>", 1 },
    { "mistral", "[INST]", { "", "\n\n" }, { "[INST] ", " [/INST]" }, "", "</s>", 1 },
};
enum { N_FORMATS = sizeof formats / sizeof *formats };

const struct chat_format *chat_by_name(const char *name) {
    for (int i = 0; i < N_FORMATS; i++)
        if (!strcmp(formats[i].name, name)) return &formats[i];
    return NULL;
}

const struct chat_format *chat_recognise(const char *jinja) {
    for (int i = 0; i < N_FORMATS; i++)
        if (strstr(jinja, formats[i].mark)) return &formats[i];
    return NULL;
}

void chat_names(char *buf, size_t size) {
    size_t used = 0;
    for (int i = 0; i < N_FORMATS && used < size; i++)
        used += (size_t)snprintf(buf + used, size - used, "%s%s", i ? ", " : "", formats[i].name);
}

char *chat_turn(const struct chat_format *f, int first, const char *system, const char *user) {
    const char *const none[3] = { "", "", "" };
    const char *const full[3] = { f->system[0], system, f->system[1] };
    const char *const *sys = first && system && *system ? full : none;
    const char *const end = first ? "" : f->end;
    const char *const inside[] = { end, f->user[0], sys[0], sys[1], sys[2], user, f->user[1],
                                   f->reply };
    const char *const before[] = { end, sys[0], sys[1], sys[2], f->user[0], user, f->user[1],
                                   f->reply };
    const char *const *part = f->system_in_user ? inside : before;
    size_t n = 1;
    for (int i = 0; i < 8; i++) n += strlen(part[i]);
    char *text = malloc(n), *at = text;
    for (int i = 0; text && i < 8; i++) at = stpcpy(at, part[i]);
    return text;
}
