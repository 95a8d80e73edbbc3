/* test_openapi.c -- the description names the endpoints that there are. That replies satisfy its schemas is checked by
 * tests/nightly/openapi.py. */
#include "gateway/openapi.h"
#include "tests/unit/api/rig.h"

#include <stdio.h>
#include <string.h>

static json_t *document(void)
{
    json_t *doc = NULL;
    assert_int_equal(qd_openapi(&doc, NULL), QD_OK);
    return doc;
}

static void the_version_is_the_programs(void **state)
{
    (void)state;
    json_t *doc = document();
    assert_string_equal(json_string_value(json_object_get(doc, "openapi")), "3.1.0");
    assert_string_equal(json_string_value(at(doc, "info.version")), QD_VERSION);
    json_decref(doc);
}

/* "{job_id}" becomes an id that is there. */
static void concrete(const char *path, char *ret, size_t bytes)
{
    size_t n = 0;
    for (const char *s = path; *s != '\0'; s++) {
        if (*s != '{') {
            ret[n++] = *s;
            continue;
        }
        const char *id = strncmp(s, "{file_id}", 9) == 0 ? FAKE_FILE : FAKE_BAILIAN_JOB "5";
        n += (size_t)snprintf(ret + n, bytes - n, "%s", id);
        s = strchr(s, '}');
    }
    ret[n] = '\0';
}

/* Each described method of each described path is let in by its API, each other method is not. */
static void the_described_methods_are_the_apis(void **state)
{
    (void)state;
    static const char *const methods[] = {"get", "post", "put", "delete", "patch"};
    fake *f = fake_new();
    json_t *doc = document();
    const char *path = NULL;
    json_t *item = NULL;
    size_t n = 0;
    json_object_foreach(json_object_get(doc, "paths"), path, item)
    {
        if (strncmp(path, "/api/v1/", 8) != 0) continue;
        char target[256], method[16] = "";
        concrete(path, target, sizeof target);
        for (size_t i = 0; i < sizeof methods / sizeof methods[0]; i++) {
            qd_http_pair key = {"Authorization", "Bearer sk-acme"};
            qd_caller c = {0};
            qd_http_reply reply = {0};
            for (size_t k = 0; k <= strlen(methods[i]); k++) method[k] = (char)(methods[i][k] & ~0x20);
            qd_http_request r = {
                .method = method, .path = target, .headers = &key, .n_headers = 1, .request_id = RIG_REQUEST_ID};
            bool let_in = qd_api_bailian()->admit(&f->env, &r, &c, &reply);
            if (let_in != (json_object_get(item, methods[i]) != NULL)) fail_msg("%s %s", method, path);
            n += let_in;
            qd_http_reply_done(&reply);
        }
    }
    assert_int_equal(n, 12);
    json_decref(doc);
    fake_free(f);
}

static void the_described_actions_are_the_apis(void **state)
{
    (void)state;
    fake *f = fake_new();
    json_t *doc = document();
    const json_t *op = json_object_get(json_object_get(json_object_get(doc, "paths"), "/v2/model"), "post");
    const json_t *actions = at(op, "parameters.0.schema.enum");
    assert_int_equal(json_array_size(actions), 9);
    for (size_t i = 0; i < json_array_size(actions); i++) {
        answer a = ask_of(f, &(ask){.target = json_string_value(json_array_get(actions, i))});
        assert_string_not_equal(code_of(&a), "InvalidURI");
        answer_done(&a);
    }
    json_decref(doc);
    fake_free(f);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_version_is_the_programs),
        cmocka_unit_test(the_described_methods_are_the_apis),
        cmocka_unit_test(the_described_actions_are_the_apis),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
