/* Any text as each of the JSON documents of an image. */
#include <stddef.h>
#include <stdint.h>

#include "image/manifest.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    const char *text = (const char *)data;
    struct docker_manifest docker;
    struct oci_index index;
    struct oci_manifest manifest;
    struct image_config config;
    enum descriptor_kind kind;

    if (docker_manifest_parse(text, size, &docker, NULL) == 0)
        docker_manifest_done(&docker);
    if (oci_index_parse(text, size, &index, NULL) == 0)
        oci_index_done(&index);
    if (oci_manifest_parse(text, size, &manifest, NULL) == 0)
        oci_manifest_done(&manifest);
    document_kind(text, size, NULL, &kind, NULL);
    image_config_parse(text, size, &config, NULL);
    image_config_done(&config);
    return 0;
}
