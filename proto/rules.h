/* rules.h -- what each text, list and some numbers of a message may be; proto/msg.c checks, tests see that no text and
 * no list is without a rule. */
#ifndef QD_PROTO_RULES_H
#define QD_PROTO_RULES_H

#include <protobuf-c/protobuf-c.h>
#include <stddef.h>
#include <stdint.h>

typedef enum qd_rule_kind {
    QD_RULE_ID,    /* proto/subject.h's alphabet */
    QD_RULE_WORD,  /* printable ASCII without spaces */
    QD_RULE_LINE,  /* UTF-8 without control bytes but tabs */
    QD_RULE_TEXT,  /* UTF-8 without control bytes but tabs and newlines */
    QD_RULE_PATH,  /* absolute, UTF-8, no control bytes, no "..", no empty part */
    QD_RULE_BYTES, /* anything */
    QD_RULE_LIST,  /* of messages: max is their number */
    QD_RULE_MSG,   /* a message that has to be there */
    QD_RULE_MAX    /* an unsigned number: max is the largest value */
} qd_rule_kind;

typedef struct qd_rule {
    size_t offset; /* of the field in its struct */
    int required;
    uint32_t list_max; /* repeated texts: how many */
    qd_rule_kind kind;
    uint32_t max; /* bytes of a text, members of a list, or the number itself */
} qd_rule;

typedef struct qd_rules {
    const ProtobufCMessageDescriptor *descriptor;
    const qd_rule *rules; /* in the order of field numbers */
    size_t n;
} qd_rules;

/* NULL: no message of ours. */
const qd_rules *qd_rules_of(const ProtobufCMessageDescriptor *d);

#endif
