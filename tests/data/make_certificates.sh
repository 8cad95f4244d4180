#!/bin/sh
# Makes the certificates of test_stream.py: an authority, a device that it vouches for, the same expired.
# They are valid for a hundred years, so there is no need to run it again.
set -eu
cd "$(dirname "$0")"
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

cat > "$work/ca.conf" <<EOF
[ca]
default_ca = test
[test]
database = $work/index
serial = $work/serial
new_certs_dir = $work
default_md = sha256
policy = any
unique_subject = no
[any]
commonName = supplied
[authority]
basicConstraints = critical,CA:TRUE
keyUsage = critical,keyCertSign,cRLSign
subjectKeyIdentifier = hash
[device]
basicConstraints = critical,CA:FALSE
keyUsage = critical,digitalSignature,keyEncipherment
extendedKeyUsage = serverAuth
subjectKeyIdentifier = hash
authorityKeyIdentifier = keyid
subjectAltName = DNS:localhost,IP:127.0.0.1,IP:::1
EOF
: > "$work/index"
echo 01 > "$work/serial"
ask() {
    openssl req -newkey rsa:2048 -nodes -subj "/CN=$2" -keyout "$work/$1.key" -out "$work/$1.csr"
}
# sign REQUEST SECTION FROM TO OUTPUT MORE...
sign() {
    request=$1 section=$2 from=$3 to=$4 output=$5
    shift 5
    openssl ca -batch -notext -config "$work/ca.conf" -keyfile "$work/ca.key" "$@" \
        -in "$work/$request.csr" -extensions "$section" -startdate "$from" -enddate "$to" -out "$output"
}
ask ca "katcp_tornado test authority"
ask device localhost
sign ca authority 20200101000000Z 21200101000000Z ca.pem -selfsign
sign device device 20200101000000Z 21200101000000Z device.pem -cert ca.pem
sign device device 20200101000000Z 20210101000000Z expired.pem -cert ca.pem
cat "$work/device.key" >> device.pem
cat "$work/device.key" >> expired.pem
