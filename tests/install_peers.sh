#!/bin/sh
# Installs the Debian programs that the peer tests run against us, where that is possible (root and apt).
# Where it is not, those tests are skipped with a reason; with CI=true they fail.
set -u
missing=""
# cdrskin lets root burn to pseudo-drives only where this file is (cdrskin(1), FILES).
[ "$(id -u)" = 0 ] && mkdir -p /root/cdrskin_permissions && : >/root/cdrskin_permissions/allow_emulated_drives
for pair in dcmdump:dcmtk openssl:openssl dvdisaster:dvdisaster dciodvfy:dicom3tools gdcmconv:libgdcm-tools Orthanc:orthanc xorriso:xorriso cdrskin:cdrskin \
            isoinfo:genisoimage 7z:p7zip-full zbarimg:zbar-tools pdftoppm:poppler-utils chromium:chromium \
            chromedriver:chromium-driver; do
    command -v "${pair%%:*}" >/dev/null 2>&1 || missing="$missing ${pair#*:}"
done
[ -e /usr/share/orthanc/plugins/libOrthancDicomWeb.so ] || missing="$missing orthanc-dicomweb"
ls /usr/lib/postgresql/*/bin/initdb >/dev/null 2>&1 || missing="$missing postgresql"
[ -z "$missing" ] && exit 0
if [ "$(id -u)" != 0 ] || ! command -v apt-get >/dev/null 2>&1; then
    echo "peer programs that are not installed (needs root and apt):$missing" >&2
    exit 0
fi
echo "installing peer programs:$missing"
export DEBIAN_FRONTEND=noninteractive
log=$(mktemp)
# An old package list names versions that are gone; a failed update is told, and the install is tried all the same.
apt-get update -qq >"$log" 2>&1 || cat "$log" >&2
# shellcheck disable=SC2086
if ! apt-get install -y -qq --no-install-recommends $missing >"$log" 2>&1; then
    tail -5 "$log" >&2
    echo "could not install:$missing" >&2
fi
rm -f "$log"
exit 0
