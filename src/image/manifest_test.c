#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/str.h"
#include "image/manifest.h"

#define HEX        "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef"
#define DOCKER     "application/vnd.docker.distribution.manifest.v2+json"
#define BLOB(type) "{\"mediaType\":\"" type "\",\"digest\":\"sha256:" HEX "\",\"size\":7}"
#define CONFIG     BLOB("application/vnd.oci.image.config.v1+json")
#define LAYER      BLOB("application/vnd.oci.image.layer.v1.tar+zstd")

static int kind_of(const char *text, const char *type, enum descriptor_kind *ret,
                   struct error **error)
{
    return document_kind(text, strlen(text), type, ret, error);
}

static void a_document_says_what_it_is_before_the_server_does(void **state)
{
    enum descriptor_kind kind;

    assert_int_equal(kind_of("{\"mediaType\":\"" DOCKER "\"}", "text/plain", &kind, NULL), 0);
    assert_int_equal(kind, DESCRIPTOR_MANIFEST);
    assert_int_equal(
        kind_of("{}", "application/vnd.oci.image.index.v1+json; charset=utf-8", &kind, NULL), 0);
    assert_int_equal(kind, DESCRIPTOR_INDEX);
    assert_int_equal(kind_of("{\"manifests\":[]}", "application/json", &kind, NULL), 0);
    assert_int_equal(kind, DESCRIPTOR_INDEX);
    assert_int_equal(kind_of("{\"layers\":[]}", NULL, &kind, NULL), 0);
    assert_int_equal(kind, DESCRIPTOR_MANIFEST);
}

static void what_is_no_manifest_is_refused_by_name(void **state)
{
    enum descriptor_kind kind;
    CLEANUP_ERROR struct error *foreign = NULL;
    CLEANUP_ERROR struct error *old = NULL;

    assert_int_equal(kind_of("{\"mediaType\":\"application/x-strange\"}", NULL, &kind, &foreign),
                     -1);
    assert_int_equal(foreign->kind, ERROR_UNSUPPORTED);
    assert_non_null(strstr(foreign->message, "'application/x-strange'"));
    assert_int_equal(kind_of("{\"schemaVersion\":1}", NULL, &kind, &old), -1);
    assert_non_null(strstr(old->message, "schema 1"));
}

static void foreign_layers_and_artifacts_are_refused_by_name(void **state)
{
    static const char foreign[] =
        "{\"config\":" CONFIG
        ",\"layers\":[" BLOB("application/vnd.docker.image.rootfs.foreign.diff.tar.gzip") "]}";
    static const char artifact[] =
        "{\"config\":" BLOB("application/vnd.oci.empty.v1+json") ",\"layers\":[]}";
    struct oci_manifest manifest;
    CLEANUP_ERROR struct error *one = NULL;
    CLEANUP_ERROR struct error *two = NULL;

    assert_int_equal(oci_manifest_parse(foreign, strlen(foreign), &manifest, &one), -1);
    assert_non_null(strstr(one->message, "rootfs.foreign.diff"));
    assert_int_equal(oci_manifest_parse(artifact, strlen(artifact), &manifest, &two), -1);
    assert_non_null(strstr(two->message, "oci.empty"));
}

static void a_document_that_is_both_index_and_manifest_is_refused(void **state)
{
    static const char text[] = "{\"config\":" CONFIG ",\"layers\":[],\"manifests\":[]}";
    struct oci_manifest manifest;
    struct oci_index index;

    assert_int_equal(oci_manifest_parse(text, strlen(text), &manifest, NULL), -1);
    assert_int_equal(oci_index_parse(text, strlen(text), &index, NULL), -1);
}

static void unknown_members_of_an_index_are_passed_over(void **state)
{
    static const char text[] =
        "{\"manifests\":[" BLOB("application/x-strange") ","
                                                         "{\"mediaType\":\"" DOCKER
                                                         "\",\"digest\":\"sha256:" HEX
                                                         "\",\"size\":7,\"platform\":"
                                                         "{\"os\":\"linux\",\"architecture\":"
                                                         "\"arm\",\"variant\":\"v7\"}}]}";
    struct oci_index index;

    assert_int_equal(oci_index_parse(text, strlen(text), &index, NULL), 0);
    assert_int_equal(index.items[0].kind, DESCRIPTOR_OTHER);
    assert_string_equal(index.items[1].platform, "linux/arm/v7");
    oci_index_done(&index);
}

static void a_manifest_that_is_written_is_read_again(void **state)
{
    struct descriptor layers[2] = {{.digest = (char[]){HEX}, .size = 1, .coding = LAYER_PLAIN},
                                   {.digest = (char[]){HEX}, .size = 2, .coding = LAYER_GZIP}};
    struct oci_manifest manifest = {
        .config = {.digest = (char[]){HEX}, .size = 7}, .layers = layers, .count = 2};
    struct oci_manifest again;
    CLEANUP_FREE char *text = oci_manifest_write(&manifest);
    CLEANUP_FREE char *type = document_media_type(text, strlen(text));

    assert_int_equal(oci_manifest_parse(text, strlen(text), &again, NULL), 0);
    assert_int_equal(again.count, 2);
    assert_int_equal(again.layers[1].size, 2);
    assert_string_equal(again.config.digest, HEX);
    assert_string_equal(type, "application/vnd.oci.image.manifest.v1+json");
    oci_manifest_done(&again);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_document_says_what_it_is_before_the_server_does),
        cmocka_unit_test(what_is_no_manifest_is_refused_by_name),
        cmocka_unit_test(foreign_layers_and_artifacts_are_refused_by_name),
        cmocka_unit_test(a_document_that_is_both_index_and_manifest_is_refused),
        cmocka_unit_test(unknown_members_of_an_index_are_passed_over),
        cmocka_unit_test(a_manifest_that_is_written_is_read_again),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
