#include <stdlib.h>
#include <string.h>
#include "model/chat.h"
#include "tests/common/check.h"

static void is_turn(const char *format, int first, const char *system, const char *user,
                    const char *want) {
    char *got = chat_turn(chat_by_name(format), first, system, user);
    assert_string_equal(got, want);
    free(got);
}

static void test_turns(void **state) {
    (void)state;
    is_turn("chatml", 1, "Be kind.", "Hi",
            "<|im_start|>system\nBe kind.<|im_end|>\n"
            "<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\n");
    is_turn("chatml", 0, "Be kind.", "More",
            "<|im_end|>\n<|im_start|>user\nMore<|im_end|>\n<|im_start|>assistant\n");
    is_turn("llama3", 1, NULL, "Hi",
            "<|start_header_id|>user<|end_header_id|>\n\nHi<|eot_id|>"
            "<|start_header_id|>assistant<|end_header_id|>\n\n");
    is_turn("llama2", 1, "S", "Hi", "[INST] <<SYS>>\nS\n<</SYS>>\n\nHi [/INST]");
    is_turn("llama2", 0, "S", "Hi", "</s><s>[INST] Hi [/INST]");
    is_turn("gemma", 1, "S", "Hi",
            "<start_of_turn>user\nS\n\nHi<end_of_turn>\n<start_of_turn>model\n");
    is_turn("mistral", 1, "", "Hi", "[INST] Hi [/INST]");
}

static void test_recognition(void **state) {
    (void)state;
    assert_string_equal(chat_recognise("{{ '<|im_start|>' + m.role }}")->name, "chatml");
    assert_string_equal(chat_recognise("... <|start_header_id|> ...")->name, "llama3");
    assert_string_equal(chat_recognise("[INST] <<SYS>> [/INST]")->name, "llama2");
    assert_string_equal(chat_recognise("{{ '[INST] ' }}")->name, "mistral");
    assert_string_equal(chat_recognise("<|user|> <|end|>")->name, "phi3");
    assert_string_equal(chat_recognise("<|user|> </s>")->name, "zephyr");
    assert_null(chat_recognise("{{ messages }}"));
    assert_null(chat_by_name("nope"));
}

int main(void) {
    const struct CMUnitTest tests[] = { cmocka_unit_test(test_turns),
                                        cmocka_unit_test(test_recognition) };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
