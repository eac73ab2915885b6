/* check.h - CMocka with the headers it wants before it, and without its macro fail(),
 * which is our base/err.h's name. */
#ifndef TESTS_COMMON_CHECK_H
#define TESTS_COMMON_CHECK_H
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#undef fail
#undef fail_msg
#define fail_msg(...) \
    (print_error("ERROR: " __VA_ARGS__), print_error("\n"), _fail(__FILE__, __LINE__))

#endif
