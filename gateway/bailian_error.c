/* bailian_error.c -- the table of errors, and replies. */
#include "gateway/bailian.h"
#include "gateway/json_make.h"

#include <string.h>

static const char k_parameter[] = "InvalidParameter";

/* clang-format off */
static const qd_error_row k_rows[QD_BAILIAN_ERROR_COUNT] = {
#define ROW(name, status, code, zh, en) [QD_BAILIAN_##name] = {status, code, {zh, en}}
    ROW(UNAUTHORIZED, 401, "Unauthorized", "API Key 缺失或无效", "The API key is missing or not valid."),
    ROW(DISABLED, 403, "Forbidden", "API Key 已停用或已过期", "The API key is disabled or has expired."),
    ROW(READ_ONLY, 403, "Forbidden", "该 API Key 只有只读权限", "This API key may only read."),
    ROW(RATE, 429, "QuotaExceeded", "请求过于频繁，请在 {0} 秒后重试", "Too many requests; try again in {0} s."),
    ROW(PATH, 404, "ResourceNotFound", "请求的资源不存在", "The requested resource does not exist."),
    ROW(METHOD, 400, k_parameter, "不支持请求方法 '{0}'", "Request method '{0}' is not supported."),
    ROW(BODY, 400, k_parameter, "请求体格式不正确，请检查请求体格式",
        "Required body invalid, please check the request body format."),
    ROW(MISSING, 400, k_parameter, "缺少必选参数 {0}", "Missing required parameter: {0}."),
    ROW(TYPE, 400, k_parameter, "参数 {0} 的类型不正确，应为 {1}", "The type of '{0}' is wrong: expected {1}."),
    ROW(MODEL_BASE, 400, k_parameter, "不支持对基础模型直接量化",
        "The specified model '{0}' is a base model and can not be quantized directly."),
    ROW(MODEL_LORA, 400, k_parameter, "LoRA 模型不支持量化",
        "The specified model '{0}' is a LoRA model and not supported for quantization."),
    ROW(MODEL_QUANTIZED, 400, k_parameter, "模型不支持量化", "The model '{0}' does not support quantization."),
    ROW(MODEL_DATA, 400, k_parameter, "模型数据不可用", "The data of model '{0}' is not available."),
    ROW(MODEL_NOT_READY, 400, k_parameter, "源模型尚未就绪", "The source model '{0}' is not ready."),
    ROW(TEMPLATE_UNKNOWN, 400, k_parameter, "指定的配置模板不存在", "The specified template '{0}' does not exist."),
    ROW(TEMPLATE_MISFIT, 400, k_parameter, "当前模型不支持该压缩模板",
        "The template '{0}' is not supported by model '{1}'."),
    ROW(TEMPLATE_ACCESS, 403, "AccessDenied", "无权使用该压缩模板", "No permission to use the template '{0}'."),
    ROW(NAME_CHARS, 400, k_parameter, "任务名称包含不支持的字符", "The job name contains unsupported characters."),
    ROW(NAME_LONG, 400, k_parameter, "任务名称超过 50 个字符", "The job name is longer than 50 characters."),
    ROW(NAME_USED, 400, k_parameter, "任务名称 {0} 已被使用", "The job name '{0}' is already in use."),
    ROW(DESCRIPTION_LONG, 400, k_parameter, "任务描述超过 200 个字符",
        "The job description is longer than 200 characters."),
    ROW(DESCRIPTION_CHARS, 400, k_parameter, "任务描述包含不支持的字符",
        "The job description contains unsupported characters."),
    ROW(SUFFIX_LONG, 400, k_parameter, "output_model_suffix 超过 8 字符",
        "output_model_suffix is longer than 8 characters."),
    ROW(SUFFIX_CHARS, 400, k_parameter, "output_model_suffix 只能包含小写字母和数字",
        "output_model_suffix may only contain lower-case letters and digits."),
    ROW(SETTING_UNKNOWN, 400, k_parameter, "未知超参数 {0}", "Unknown hyper parameter '{0}'."),
    ROW(SETTING_CHOICE, 400, k_parameter, "超参数 {0} 的值不在枚举值列表中", "The value of '{0}' is not one of {1}."),
    ROW(SETTING_RANGE, 400, k_parameter, "超参数 {0} 的值超出范围", "The value of '{0}' is out of range [{1},{2}]."),
    ROW(SETTING_STEP, 400, k_parameter, "超参数 {0} 的值不符合步长 {1}",
        "The value of '{0}' is not a multiple of {1} from {2}."),
    ROW(SETTING_NUMBER, 400, k_parameter, "超参数 {0} 的值不是合法数字", "The value of '{0}' is not a number."),
    ROW(SETTING_TEXT, 400, k_parameter, "超参数 {0} 的值过长或包含不支持的字符", "The value of '{0}' is too long or contains unsupported characters."),
    ROW(CALIBRATION_MANY, 400, k_parameter, "校准数据集最多 {0} 个", "At most {0} calibration files are allowed."),
    ROW(CALIBRATION_ID, 400, k_parameter, "校准数据集 ID {0} 的格式不正确",
        "The calibration file id '{0}' is not of the form file-{32hex}."),
    ROW(CALIBRATION_UNKNOWN, 400, k_parameter, "校准数据集 {0} 不存在", "The calibration file '{0}' does not exist."),
    ROW(REPEAT_KEY, 400, k_parameter, "请求头 Idempotency-Key 应为 1 至 128 个可见 ASCII 字符",
        "The header Idempotency-Key must be 1 to 128 visible ASCII characters."),
    ROW(REPEAT_OTHER, 400, k_parameter, "请求头 Idempotency-Key 已用于参数不同的请求，或其任务已删除",
        "The header Idempotency-Key was used before with other parameters, or for a job that is deleted."),
    ROW(REFUSED, 400, k_parameter, "请求参数不合法", "A parameter is not valid."),
    ROW(QUOTA, 429, "QuotaExceeded", "超出配额：任务队列、任务记录或存储空间已满",
        "The quota is exceeded: the queue, the records or the storage are full."),
    ROW(JOB_UNKNOWN, 404, "NotFound", "指定的压缩任务不存在", "The specified compression job '{0}' does not exist."),
    ROW(STATE_CANCEL, 400, "UnsupportedOperation", "任务当前状态({0})不允许该操作",
        "The compression job can not be canceled because it is {0}."),
    ROW(STATE_DELETE, 400, "UnsupportedOperation", "任务当前状态({0})不允许该操作",
        "The compression job can not be deleted because it is {0}."),
    ROW(NUMBER, 400, k_parameter, "参数 {0} 应为 {1} 到 {2} 的整数",
        "The value of '{0}' must be a whole number from {1} to {2}."),
    ROW(CHOICE, 400, k_parameter, "参数 {0} 的值应为 {1} 之一", "The value of '{0}' must be one of {1}."),
    ROW(TIME, 400, k_parameter, "参数 {0} 的时间格式不正确",
        "The value of '{0}' is not a time: use yyyy-MM-dd HH:mm:ss, yyyy-MM-dd or ISO 8601."),
    ROW(FILE_UNKNOWN, 400, k_parameter, "文件不存在", "File not found."),
    ROW(FILES_MISSING, 400, "MissingParameter", "缺少必选参数 {0}", "Missing required parameter: {0}."),
    ROW(MULTIPART, 400, k_parameter, "请求体不是合法的 multipart/form-data",
        "The request body is not valid multipart/form-data."),
    ROW(PURPOSE, 400, k_parameter, "参数 purpose 的值应为 fine-tune、file-extract、batch 之一",
        "The value of 'purpose' must be one of fine-tune, file-extract, batch."),
    ROW(TOO_LARGE, 413, k_parameter, "请求体过大", "The request body is too large."),
    ROW(BUSY, 429, "QuotaExceeded", "服务繁忙，请稍后重试", "Too many requests at once; try again."),
    ROW(AWAY, 503, "InternalError", "服务暂不可用，请稍后重试",
        "The service is not available for the moment; try again."),
    ROW(INTERNAL, 500, "InternalError", "内部错误", "An internal error occurred."),
    ROW(PART_LARGE, 200, "BadRequest.TooLarge", "文件过大", "The file is too large."),
    ROW(PART_MANY, 200, "BadRequest.TooMany", "文件过多，或总容量超限", "There are too many files, or all of them together are too large."),
    ROW(PART_QUOTA, 200, "QuotaExceeded", "存储空间不足", "There is no room for the file."),
    ROW(PART_NAME, 200, k_parameter, "文件名或描述不合法", "The name or description of the file is not valid."),
    ROW(PART_FAILED, 200, "InternalError", "文件未能保存，请重试", "The file could not be stored; try again."),
#undef ROW
};
/* clang-format on */

const qd_error_row *qd_bailian_error_row(qd_bailian_error e)
{
    return &k_rows[e];
}

void qd_bailian_refuse(const qd_http_request *r, qd_http_reply *ret, qd_bailian_error e, const char *a0, const char *a1,
                       const char *a2)
{
    const qd_error_row *row = &k_rows[e];
    qd_buf text = {0};
    qd_fill(&text, qd_in(qd_lang_of(r), row->text), (const char *const[]){a0, a1, a2});
    json_t *body = text.failed ? NULL
                               : json_pack("{s:s, s:s, s:s}", "request_id", r->request_id, "code", row->code, "message",
                                           text.data);
    qd_http_reply_json(ret, row->status, body);
    if (row->status == 503) qd_http_reply_header(ret, "Retry-After", "1");
    qd_buf_done(&text);
}

bool qd_bailian_fail(qd_bailian *q, qd_bailian_error e, const char *a0, const char *a1, const char *a2)
{
    qd_bailian_refuse(q->r, q->reply, e, a0, a1, a2);
    return false;
}

bool qd_bailian_fail_code(qd_bailian *q, qd_code code)
{
    qd_bailian_error e = code == QD_E_AWAY                              ? QD_BAILIAN_AWAY
                         : code == QD_E_BUSY                            ? QD_BAILIAN_BUSY
                         : code == QD_E_FULL || code == QD_E_ROOM       ? QD_BAILIAN_QUOTA
                         : code == QD_E_INPUT || code == QD_E_TOO_LARGE ? QD_BAILIAN_REFUSED
                                                                        : QD_BAILIAN_INTERNAL;
    return qd_bailian_fail(q, e, NULL, NULL, NULL);
}

void qd_bailian_ok(qd_bailian *q, const char *member, json_t *value)
{
    json_t *body = json_pack("{s:s}", "request_id", q->r->request_id);
    if (member != NULL) qd_json_put(&body, member, value);
    qd_http_reply_json(q->reply, 200, body);
}
