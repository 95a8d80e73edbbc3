# openapi.json becomes bytes in C; QD_OPENAPI_C is the file to compile.
file(READ ${CMAKE_CURRENT_LIST_DIR}/openapi.json QD_OPENAPI_HEX HEX)
string(REGEX REPLACE "([0-9a-f][0-9a-f])" "0x\\1," QD_OPENAPI_HEX "${QD_OPENAPI_HEX}")
string(REGEX REPLACE "(0x..,0x..,0x..,0x..,0x..,0x..,0x..,0x..,0x..,0x..,0x..,0x..,0x..,0x..,0x..,0x..,)" "\\1\n" QD_OPENAPI_HEX "${QD_OPENAPI_HEX}")
set(QD_OPENAPI_C ${CMAKE_CURRENT_BINARY_DIR}/openapi_json.c)
file(CONFIGURE OUTPUT ${QD_OPENAPI_C} CONTENT [=[
#include "gateway/openapi.h"
const unsigned char qd_openapi_json[] = {
@QD_OPENAPI_HEX@};
const size_t qd_openapi_json_bytes = sizeof qd_openapi_json;
]=] @ONLY)
set_property(DIRECTORY APPEND PROPERTY CMAKE_CONFIGURE_DEPENDS ${CMAKE_CURRENT_LIST_DIR}/openapi.json)
