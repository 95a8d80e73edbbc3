/* The library that a program loads: one symbol, all others found, and NCCL's own answer on this machine. */
// clang-format off
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <cmocka.h>
// clang-format on
#include <dlfcn.h>
#include <string.h>

#include "gpu/cuda/comm_nccl.h"

static void a_gang_of_one_works_or_says_why_not(void **state)
{
    void *library = dlopen(*state, RTLD_NOW | RTLD_LOCAL);
    if (library == NULL) print_message("%s\n", dlerror());
    assert_non_null(library);
    const qd_nccl_library *(*get)(void) = NULL;
    void *symbol = dlsym(library, "qd_nccl_library_of");
    assert_non_null(symbol);
    assert_null(dlsym(library, "qd_comm_tick"));
    memcpy(&get, &symbol, sizeof get);
    const qd_nccl_library *l = get();
    assert_int_equal(l->version, QD_NCCL_LIBRARY_VERSION);
    assert_int_equal(l->comm_bytes, sizeof(qd_comm));
    char name[32];
    assert_int_equal(l->name(name, sizeof name, NULL), QD_OK);
    print_message("%s\n", name);
    assert_int_equal(strncmp(name, "nccl-2.", 7), 0);
    const qd_comm_kind *k = l->kind();
    assert_string_equal(k->name, "nccl");
    const qd_comm_options o = {.n_ranks = 1, .wait_ms = 60000};
    qd_comm_invite invite;
    qd_comm *c = NULL;
    qd_err err = {0};
    qd_code rc = k->invite(1, &invite, &err);
    if (rc == QD_OK) rc = k->open(&invite, &o, &c, &err);
    if (rc == QD_OK) {
        float x[3] = {1, 2, 3};
        const qd_comm_call call = {.number = 1, .n = 3, .verb = QD_COMM_ALL_REDUCE};
        assert_int_equal(c->ops->collective(c, &call, NULL, x, &err), QD_OK);
        assert_true(x[0] == 1.0f && x[2] == 3.0f);
        c->ops->free(c);
    } else {
        print_message("%s\n", err.msg);
        assert_int_equal(rc, QD_E_DEVICE);
        assert_true(strlen(err.msg) > 10);
    }
    /* Not closed: ncclGetUniqueId() left a thread in it. */
}

int main(int argc, char **argv)
{
    if (argc != 2) return 2;
    const struct CMUnitTest tests[] = {cmocka_unit_test_prestate(a_gang_of_one_works_or_says_why_not, argv[1])};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
