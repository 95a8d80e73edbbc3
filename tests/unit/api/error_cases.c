#include "tests/unit/api/error_cases.h"

#define JOBS         "/api/v1/fine-tunes/compress/jobs"
#define M            "\"model\":\"demo-ft-1\""
#define T            "\"template_id\":\"nvfp4-w4a4\""
#define B(row)       QD_BAILIAN_##row
#define TYPES        "\"model\":\"qwen-ft\",\"template_id\":\"types\""
#define TEN          "aaaaaaaaaa"
#define FIFTY        TEN TEN TEN TEN TEN
#define STATES       "[PENDING,QUEUING,RUNNING,CANCELING,SUCCEEDED,FAILED,CANCELED]"
#define CREATE(text) .ask = {.target = JOBS, .body = text}

/* clang-format off */
static const error_case k_bailian[] = {
    {B(UNAUTHORIZED), "no key", .ask = {.target = JOBS, .key = ""}, .how = "any request without Authorization"},
    {B(UNAUTHORIZED), "unknown key", .ask = {.target = JOBS, .key = "nobody"}, .how = "any request with an unknown key"},
    {B(UNAUTHORIZED), "another scheme", .ask = {.target = JOBS, .authorization = "Basic c2s6YWNtZQ=="}, .how = "Authorization: Basic ..."},
    {B(DISABLED), "disabled or expired key", .ask = {.target = JOBS, .key = "off"}, .how = "any request with such a key"},
    {B(READ_ONLY), "a key that may only read", .ask = {.target = JOBS "/" FAKE_BAILIAN_JOB "1/cancel", .method = "POST", .key = "read"}},
    {B(RATE), "over the rate", .ask = {.target = JOBS, .key = "busy"}, {"2"}, .how = "more requests a second than the key may (header Retry-After)"},
    {B(PATH), "unknown path", .ask = {.target = "/api/v1/fine-tunes/compress/nothing"}},
    {B(METHOD), "wrong method", .ask = {.target = JOBS, .method = "PUT"}, {"PUT"}},
    {B(BODY), "not JSON", CREATE("{\"model\":")},
    {B(BODY), "not an object", CREATE("[]")},
    {B(BODY), "a member twice", CREATE("{" M "," M "," T "}")},
    {B(MISSING), "model absent", CREATE("{" T "}"), {"model"}},
    {B(MISSING), "template_id absent", CREATE("{" M "}"), {"template_id"}},
    {B(MISSING), "job_id absent", .ask = {.target = JOBS "//logs"}, {"job_id"}},
    {B(TYPE), "member of a wrong type", CREATE("{\"model\":1," T "}"), {"model", "String"}},
    {B(TYPE), "member of a wrong type", CREATE("{" M "," T ",\"hyper_parameters\":[]}"), {"hyper_parameters", "Object"}},
    {B(TYPE), "value of a wrong type", CREATE("{" M "," T ",\"hyper_parameters\":{\"calib_samples\":{}}}"), {"calib_samples", "String, Number or Boolean"}},
    {B(TYPE), "member of a wrong type", CREATE("{" M "," T ",\"custom_calibration_file_ids\":\"x\"}"), {"custom_calibration_file_ids", "Array<String>"}},
    {B(MODEL_BASE), "model names a base model", CREATE("{\"model\":\"smollm2\"," T "}"), {"smollm2"}},
    {B(MODEL_BASE), "model is a base model's entry", CREATE("{\"model\":\"gemma\"," T "}"), {"gemma"}},
    {B(MODEL_LORA), "LoRA model", CREATE("{\"model\":\"demo-lora\"," T "}"), {"demo-lora"}},
    {B(MODEL_QUANTIZED), "model already quantized", CREATE("{\"model\":\"smollm2-amva-000000000005\"," T "}"), {"smollm2-amva-000000000005"}},
    {B(MODEL_DATA), "unknown model, or another user's", CREATE("{\"model\":\"other-ft\"," T "}"), {"other-ft"}},
    {B(MODEL_DATA), "the model's files are broken", CREATE("{\"model\":\"demo-broken\"," T "}"), {"demo-broken"}},
    {B(MODEL_NOT_READY), "model not ready", CREATE("{\"model\":\"demo-creating\"," T "}"), {"demo-creating"}},
    {B(TEMPLATE_UNKNOWN), "template does not exist", CREATE("{" M ",\"template_id\":\"none\"}"), {"none"}},
    {B(TEMPLATE_MISFIT), "template not for this model", CREATE("{" M ",\"template_id\":\"types\"}"), {"types", "demo-ft-1"}},
    {B(TEMPLATE_ACCESS), "no right to the template", .ask = {.target = JOBS, .body = "{" M "," T "}", .key = "some"}, {"nvfp4-w4a4"}},
    {B(NAME_CHARS), "job_name has other characters", CREATE("{" M "," T ",\"job_name\":\"a*b\"}")},
    {B(NAME_LONG), "job_name longer than 50", CREATE("{" M "," T ",\"job_name\":\"" FIFTY "b\"}")},
    {B(NAME_USED), "job_name already used", CREATE("{" M "," T ",\"job_name\":\"job RUNNING\"}"), {"job RUNNING"}},
    {B(DESCRIPTION_LONG), "job_description longer than 200", CREATE("{" M "," T ",\"job_description\":\"" FIFTY FIFTY FIFTY FIFTY "b\"}")},
    {B(DESCRIPTION_CHARS), "job_description has control characters", CREATE("{" M "," T ",\"job_description\":\"\\u0001\"}")},
    {B(SUFFIX_LONG), "suffix longer than 8", CREATE("{" M "," T ",\"output_model_suffix\":\"abcdefghi\"}")},
    {B(SUFFIX_CHARS), "suffix has other characters", CREATE("{" M "," T ",\"output_model_suffix\":\"A-b\"}")},
    {B(SETTING_UNKNOWN), "unknown hyper-parameter", CREATE("{" M "," T ",\"hyper_parameters\":{\"nope\":1}}"), {"nope"}},
    {B(SETTING_UNKNOWN), "hyper-parameter that is not shown", CREATE("{" M "," T ",\"hyper_parameters\":{\"input_scale\":\"minmax\"}}"), {"input_scale"}},
    {B(SETTING_CHOICE), "value not in its list", CREATE("{" M "," T ",\"hyper_parameters\":{\"block_scale\":\"best\"}}"), {"block_scale", "[minmax,four_over_six,mse,hessian]"}},
    {B(SETTING_CHOICE), "value not in its list", CREATE("{" M "," T ",\"hyper_parameters\":{\"calib_input\":false}}"), {"calib_input", "[true]"}},
    {B(SETTING_CHOICE), "neither true nor false", CREATE("{" TYPES ",\"hyper_parameters\":{\"flag\":1}}"), {"flag", "[true,false]"}},
    {B(SETTING_RANGE), "number out of range", CREATE("{" M "," T ",\"hyper_parameters\":{\"calib_samples\":0}}"), {"calib_samples", "1", "65536"}},
    {B(SETTING_RANGE), "number out of range", CREATE("{" M "," T ",\"hyper_parameters\":{\"calib_samples\":1e300}}"), {"calib_samples", "1", "65536"}},
    {B(SETTING_STEP), "number off its step", CREATE("{" M "," T ",\"hyper_parameters\":{\"calib_seq_len\":100}}"), {"calib_seq_len", "16", "16"}},
    {B(SETTING_NUMBER), "not a number", CREATE("{" M "," T ",\"hyper_parameters\":{\"calib_samples\":\"ten\"}}"), {"calib_samples"}},
    {B(SETTING_TEXT), "text too long, or with control characters", CREATE("{" TYPES ",\"hyper_parameters\":{\"text\":\"" TEN "\"}}"), {"text"}, .how = "a setting of type text with more than 1024 bytes, or control characters"},
    {B(CALIBRATION_MANY), "more than 5 calibration files", CREATE("{" M "," T ",\"custom_calibration_file_ids\":[\"1\",\"2\",\"3\",\"4\",\"5\",\"6\"]}"), {"5"}},
    {B(CALIBRATION_ID), "ill-formed calibration id", CREATE("{" M "," T ",\"custom_calibration_file_ids\":[\"file-1\"]}"), {"file-1"}},
    {B(CALIBRATION_UNKNOWN), "unknown calibration file, or another user's", CREATE("{" M "," T ",\"custom_calibration_file_ids\":[\"" FAKE_FILE_OTHER "\"]}"), {FAKE_FILE_OTHER}},
    {B(REPEAT_KEY), "Idempotency-Key ill-formed", .ask = {.target = JOBS, .body = "{" M "," T "}", .repeat_key = "a b"}},
    {B(REPEAT_OTHER), "Idempotency-Key used for another job", .ask = {.target = JOBS, .body = "{" M "," T "}", .repeat_key = "used"}, .how = "the same Idempotency-Key, other parameters"},
    {B(REFUSED), "what the service refuses beyond these rules", CREATE("{" M "," T "}"), .fail_op = "job_create", .fail_code = QD_E_INPUT, .how = "none known"},
    {B(QUOTA), "queue, records or disk full", CREATE("{" M "," T "}"), .fail_op = "job_create", .fail_code = QD_E_FULL, .how = "a creation beyond the limits of the user or the service"},
    {B(JOB_UNKNOWN), "unknown job", .ask = {.target = JOBS "/quant-1"}, {"quant-1"}},
    {B(JOB_UNKNOWN), "another user's job", .ask = {.target = JOBS "/" FAKE_BAILIAN_JOB_OTHER "/logs"}, {FAKE_BAILIAN_JOB_OTHER}},
    {B(STATE_CANCEL), "cancel after the end", .ask = {.target = JOBS "/" FAKE_BAILIAN_JOB "5/cancel", .method = "POST"}, {"SUCCEEDED"}},
    {B(STATE_CANCEL), "cancel while canceling", .ask = {.target = JOBS "/" FAKE_BAILIAN_JOB "4/cancel", .method = "POST"}, {"CANCELING"}},
    {B(STATE_DELETE), "delete before the end", .ask = {.target = JOBS "/" FAKE_BAILIAN_JOB "3", .method = "DELETE"}, {"RUNNING"}},
    {B(NUMBER), "page_no below 1", .ask = {.target = JOBS "?page_no=0"}, {"page_no", "1", "4294967295"}},
    {B(NUMBER), "page_size outside 1..100", .ask = {.target = JOBS "?page_size=101"}, {"page_size", "1", "100"}},
    {B(NUMBER), "line not a number", .ask = {.target = JOBS "/" FAKE_BAILIAN_JOB "5/logs?line=-1"}, {"line", "1", "9223372036854775807"}},
    {B(CHOICE), "unknown status", .ask = {.target = JOBS "?status=DONE"}, {"status", STATES}},
    {B(CHOICE), "unknown select_key", .ask = {.target = JOBS "?search_key=a&select_key=model"}, {"select_key", "[job_id,job_name]"}},
    {B(CHOICE), "unknown sort_by", .ask = {.target = JOBS "?sort_by=job_name"}, {"sort_by", "[create_time]"}},
    {B(CHOICE), "unknown sort_order", .ask = {.target = JOBS "?sort_order=up"}, {"sort_order", "[asc,desc]"}},
    {B(TIME), "bad time", .ask = {.target = JOBS "?start_time=2026-02-30"}, {"start_time"}},
    {B(TIME), "bad time", .ask = {.target = JOBS "?end_time=yesterday"}, {"end_time"}},
    {B(FILE_UNKNOWN), "unknown file, or another user's", .ask = {.target = "/api/v1/files/" FAKE_FILE_OTHER}},
    {B(FILES_MISSING), "an upload without files", .ask = {.target = "/api/v1/files", .method = "POST"}, {"files"}, .upload = 1},
    {B(MULTIPART), "an upload that is no multipart body", .ask = {.target = "/api/v1/files", .method = "POST"}, .refusal = 1 + QD_REFUSE_MULTIPART},
    {B(PURPOSE), "an upload for a purpose that is not known", .ask = {.target = "/api/v1/files", .method = "POST"}, .refusal = 1 + QD_REFUSE_PURPOSE},
    {B(TOO_LARGE), "body above the limit", CREATE("…"), .refusal = 1 + QD_REFUSE_BODY_TOO_LARGE},
    {B(BUSY), "too many requests at once", CREATE("{" M "," T "}"), .fail_op = "job_create", .fail_code = QD_E_BUSY, .how = "any request"},
    {B(BUSY), "too many requests at once", .ask = {.target = JOBS}, .refusal = 1 + QD_REFUSE_BUSY, .how = "any request"},
    {B(AWAY), "the bus does not answer", CREATE("{" M "," T "}"), .fail_op = "job_create", .fail_code = QD_E_AWAY, .how = "any request (header Retry-After)"},
    {B(AWAY), "the bus does not answer", .ask = {.target = JOBS}, .refusal = 1 + QD_REFUSE_AWAY, .how = "any request"},
    {B(INTERNAL), "anything unexpected", .ask = {.target = JOBS}, .fail_op = "job_list", .fail_code = QD_E_IO, .how = "any request"},
    {B(INTERNAL), "anything unexpected", .ask = {.target = JOBS}, .refusal = 1 + QD_REFUSE_INTERNAL, .how = "any request"},
    {B(PART_LARGE), "a file above the limit", .ask = {.target = "/api/v1/files", .method = "POST"}, .upload = 2, .fail_code = QD_E_TOO_LARGE},
    {B(PART_MANY), "more files or bytes than the upload or the user may have", .ask = {.target = "/api/v1/files", .method = "POST"}, .upload = 2, .fail_code = QD_E_FULL},
    {B(PART_QUOTA), "the disk is full", .ask = {.target = "/api/v1/files", .method = "POST"}, .upload = 2, .fail_code = QD_E_ROOM},
    {B(PART_NAME), "bad name or description of a file", .ask = {.target = "/api/v1/files", .method = "POST"}, .upload = 2, .fail_code = QD_E_INPUT},
    {B(PART_FAILED), "anything unexpected", .ask = {.target = "/api/v1/files", .method = "POST"}, .upload = 2, .fail_code = QD_E_IO},
};

#define Q(row) QD_QIANFAN_##row
#define TASK(id) "{\"modelCompTaskId\":\"" id "\"}"
/* Ids that fake_seed.c makes of the models' names. */
#define NAME "\"name\":\"n\""
#define SRC  "\"sourceModelId\":\"$demo-ft-1\""
#define SET  "\"modelSetId\":\"$set\""
#define QUANT(w) "\"config\":{\"strategy\":\"Quantization\",\"weight\":\"" w "\"}"
#define NEW(text) .ask = {.target = "CreateModelCompTask", .body = text}

static const error_case k_qianfan[] = {
    {Q(AUTH_HEADER), "no Authorization, or not of six parts", .ask = {.target = "DescribeModelCompTasks", .key = ""}, .how = "any request without Authorization"},
    {Q(AUTH_HEADER), "another scheme", .ask = {.target = "DescribeModelCompTasks", .authorization = "Bearer sk-acme"}, .how = "Authorization: Bearer ..."},
    {Q(UNKNOWN_KEY), "unknown access key", .ask = {.target = "DescribeModelCompTasks", .key = "nobody"}, .how = "any request with an unknown key"},
    {Q(DISABLED), "disabled or expired key", .ask = {.target = "DescribeModelCompTasks", .key = "off"}, .how = "any request with such a key"},
    {Q(EXPIRED), "signature too old", .ask = {.target = "DescribeModelCompTasks", .authorization = "bce-auth-v1/ak-acme/2026-04-11T11:54:59Z/300/host/0000000000000000000000000000000000000000000000000000000000000000"}, {"2026-04-11T11:54:59Z"}, .how = "a request sent again later"},
    {Q(EXPIRED), "signature more than 15 minutes ahead", .ask = {.target = "DescribeModelCompTasks", .authorization = "bce-auth-v1/ak-acme/2026-04-11T12:15:01Z/300/host/0000000000000000000000000000000000000000000000000000000000000000"}, {"2026-04-11T12:15:01Z"}, .how = "a clock that is wrong"},
    {Q(SIGNATURE), "wrong signature", .ask = {.target = "DescribeModelCompTasks", .authorization = "bce-auth-v1/ak-acme/2026-04-11T12:00:00Z/300/host/0000000000000000000000000000000000000000000000000000000000000000"}, .how = "a wrong secret, a changed request, Host not signed"},
    {Q(RATE), "over the rate", .ask = {.target = "DescribeModelCompTasks", .key = "busy"}, {"2"}, .how = "more requests a second than the key may (header Retry-After)"},
    {Q(VERSION), "another version", .ask = {.target = "/v1/model?Action=DescribeModelCompTasks", .body = "{}"}},
    {Q(URI), "no action", .ask = {.target = "/v2/model"}},
    {Q(URI), "unknown action", .ask = {.target = "describeModelCompTasks"}},
    {Q(URI), "wrong method", .ask = {.target = "/v2/model?Action=DescribeModelCompTasks", .method = "GET"}},
    {Q(URI), "unknown path", .ask = {.target = "/v2/other?Action=DescribeModelCompTasks"}},
    {Q(READ_ONLY), "a key that may only read", .ask = {.target = "CancelModelCompTask", .body = TASK(FAKE_QIANFAN_JOB "1"), .key = "read"}},
    {Q(ENCODING), "body is not UTF-8", .ask = {.target = "DescribeModelCompTask", .body = "{\"modelCompTaskId\":\"\xff\"}"}, .how = "DescribeModelCompTask with bytes that are not UTF-8"},
    {Q(MALFORMED), "not JSON", .ask = {.target = "DescribeModelCompTask", .body = "{"}},
    {Q(SHAPE), "not an object", .ask = {.target = "DescribeModelCompTask", .body = "[]"}},
    {Q(PARAM), "parameter absent", .ask = {.target = "DescribeModelCompTask"}, {"modelCompTaskId"}},
    {Q(PARAM), "parameter absent", NEW("{}"), {"name"}},
    {Q(PARAM), "parameter of a wrong type", NEW("{" NAME ",\"description\":1}"), {"description"}},
    {Q(PARAM), "name longer than 50", NEW("{\"name\":\"" FIFTY "b\"}"), {"name"}},
    {Q(PARAM), "parameter absent", NEW("{" NAME "}"), {"sourceModelId"}},
    {Q(PARAM), "parameter absent", NEW("{" NAME "," SRC "}"), {"modelSetId"}},
    {Q(PARAM), "parameter absent", NEW("{" NAME "," SRC "," SET "}"), {"config"}},
    {Q(PARAM), "strategy unknown", NEW("{" NAME "," SRC "," SET ",\"config\":{\"strategy\":\"quantization\"}}"), {"config.strategy"}},
    {Q(PARAM), "weight unknown", NEW("{" NAME "," SRC "," SET "," QUANT("FP3") "}"), {"config.weight"}},
    {Q(PARAM), "ratio out of range", NEW("{" NAME "," SRC "," SET ",\"config\":{\"strategy\":\"Sparsity\",\"sparsityRatio\":1}}"), {"config.sparsityRatio"}},
    {Q(PARAM), "unknown marker", .ask = {.target = "DescribeModelCompTasks", .body = "{\"marker\":\"amva-unknown\"}"}, {"marker"}},
    {Q(PARAM), "maxKeys below 1", .ask = {.target = "DescribeModelCompTasks", .body = "{\"maxKeys\":0}"}, {"maxKeys"}},
    {Q(PARAM), "parameter of a wrong type", .ask = {.target = "DescribeModelCompTasks", .body = "{\"pageReverse\":\"no\"}"}, {"pageReverse"}},
    {Q(PARAM), "both or neither of two", .ask = {.target = "DescribeModelSet"}, {"modelSetId"}},
    {Q(NO_MODEL), "unknown model, or another user's", .ask = {.target = "DescribeModel", .body = "{\"modelId\":\"amv-unknown\"}"}, {"amv-unknown"}},
    {Q(NO_MODEL), "unknown model, or another user's", NEW("{" NAME ",\"sourceModelId\":\"amv-unknown\"," SET "," QUANT("NVFP4") "}"), {"amv-unknown"}},
    {Q(NO_SET), "unknown set", .ask = {.target = "DescribeModelSet", .body = "{\"modelSetId\":\"am-unknown\"}"}, {"am-unknown"}},
    {Q(NO_SET), "unknown set", NEW("{" NAME "," SRC ",\"modelSetId\":\"am-unknown\"," QUANT("NVFP4") "}"), {"am-unknown"}},
    {Q(NO_TASK), "unknown task", .ask = {.target = "DescribeModelCompTask", .body = TASK("amva-unknown")}, {"amva-unknown"}},
    {Q(NO_TASK), "another user's task", .ask = {.target = "DeleteModelCompTask", .body = TASK(FAKE_QIANFAN_JOB_OTHER)}, {FAKE_QIANFAN_JOB_OTHER}},
    {Q(NOT_COMPRESSIBLE), "LoRA, quantized, base, or not ready", NEW("{" NAME ",\"sourceModelId\":\"$demo-lora\"," SET "," QUANT("NVFP4") "}"), {"$demo-lora"}},
    {Q(NO_ENGINE), "a scheme without an engine", NEW("{" NAME "," SRC "," SET "," QUANT("int8-ptq") "}"), {"INT8-PTQ", "NVFP4, NVFP4-W4A4"}},
    {Q(NO_ENGINE), "a scheme without an engine", NEW("{" NAME "," SRC "," SET "," QUANT("WINT8") "}"), {"WINT8", "NVFP4, NVFP4-W4A4"}},
    {Q(NO_ENGINE), "a scheme without an engine", NEW("{" NAME "," SRC "," SET "," QUANT("W8A16C16") "}"), {"W8A16C16", "NVFP4, NVFP4-W4A4"}},
    {Q(NO_ENGINE), "a scheme without an engine", NEW("{" NAME "," SRC "," SET "," QUANT("W4A16C16") "}"), {"W4A16C16", "NVFP4, NVFP4-W4A4"}},
    {Q(NO_ENGINE), "a scheme without an engine", NEW("{" NAME "," SRC "," SET ",\"config\":{\"strategy\":\"Sparsity\"}}"), {"Sparsity", "NVFP4, NVFP4-W4A4"}},
    {Q(NO_TEMPLATE), "the scheme's template was removed", NEW("{" NAME "," SRC "," SET "," QUANT("NVFP4") "}"), {"nvfp4-w4a16"}, .fail_op = "-templates"},
    {Q(TEMPLATE_ACCESS), "no right to the template", .ask = {.target = "CreateModelCompTask", .body = "{" NAME "," SRC "," SET "," QUANT("NVFP4-W4A4") "}", .key = "some"}, {"nvfp4-w4a4"}},
    {Q(REPEAT_OTHER), "Idempotency-Key used for another task", .ask = {.target = "CreateModelCompTask", .body = "{" NAME "," SRC "," SET "," QUANT("NVFP4") "}", .repeat_key = "used"}, .how = "the same Idempotency-Key, other parameters"},
    {Q(STATE_CANCEL), "stop after the end", .ask = {.target = "CancelModelCompTask", .body = TASK(FAKE_QIANFAN_JOB "6")}, {"failed"}},
    {Q(STATE_CANCEL), "stop while stopping", .ask = {.target = "StopModelCompTask", .body = TASK(FAKE_QIANFAN_JOB "4")}, {"stopping"}},
    {Q(STATE_DELETE), "delete before the end", .ask = {.target = "DeleteModelCompTask", .body = TASK(FAKE_QIANFAN_JOB "2")}, {"creating"}},
    {Q(QUOTA), "queue or records full", NEW("{" NAME "," SRC "," SET "," QUANT("nvfp4") "}"), .fail_op = "job_create", .fail_code = QD_E_FULL, .how = "a creation beyond the limits of the user or the service"},
    {Q(BUSY), "too many requests at once", NEW("{" NAME "," SRC "," SET "," QUANT("nvfp4") "}"), .fail_op = "job_create", .fail_code = QD_E_BUSY, .how = "any request"},
    {Q(BUSY), "too many requests at once", .ask = {.target = "DescribeModelCompTasks"}, .refusal = 1 + QD_REFUSE_BUSY, .how = "any request"},
    {Q(TOO_LARGE), "body above the limit", NEW("…"), .refusal = 1 + QD_REFUSE_BODY_TOO_LARGE},
    {Q(AWAY), "the bus does not answer", .ask = {.target = "CancelModelCompTask", .body = TASK(FAKE_QIANFAN_JOB "1")}, .fail_op = "job_cancel", .fail_code = QD_E_AWAY, .how = "any request (header Retry-After)"},
    {Q(INTERNAL), "anything unexpected", .ask = {.target = "DescribeModelCompTasks"}, .fail_op = "job_list", .fail_code = QD_E_IO, .how = "any request"},
};
/* clang-format on */

const error_case *bailian_cases(size_t *ret_n)
{
    *ret_n = sizeof k_bailian / sizeof k_bailian[0];
    return k_bailian;
}

const error_case *qianfan_cases(size_t *ret_n)
{
    *ret_n = sizeof k_qianfan / sizeof k_qianfan[0];
    return k_qianfan;
}
