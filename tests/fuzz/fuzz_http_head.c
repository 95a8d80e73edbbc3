/* Fuzzes what a request's head is read with: target, headers, the first bytes of a connection, Last-Event-ID. */
#include "fuzz.h"
#include "gateway/accept.h"
#include "gateway/live_events.h"
#include "gateway/request.h"

#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    qd_http_pair query[QD_REQUEST_QUERY_MAX];
    const char *path = NULL, *id = NULL;
    size_t n = 0, id_n = 0;
    qd_accept_kind kind;
    qd_place place;
    qd_head head = {0};
    char *text = malloc(size + 1);
    if (text == NULL) return 0;
    memcpy(text, data, size);
    text[size] = '\0';
    (void)qd_accept_tell(text, size, &kind);
    (void)qd_place_parse(text, &place);
    for (const char *s = text; *s != '\0';) {
        size_t line = strcspn(s, "\n"), name = strcspn(s, ":\n");
        qd_head_add(&head, s, name, s + name, line - name, 1000);
        s += line + (s[line] != '\0');
    }
    qd_head_end(&head, size % 2 == 0);
    if (qd_target_split(text, &path, query, &n) == NULL) {
        (void)qd_is_events("GET", path, &id, &id_n);
        for (size_t i = 0; i < n; i++)
            if (!qd_str_is_utf8(query[i].name) || !qd_str_is_utf8(query[i].value)) abort();
    }
    free(text);
    return 0;
}
