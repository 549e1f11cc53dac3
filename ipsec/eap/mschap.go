package eap

import (
	"bytes"
	"crypto/des"
	"crypto/sha1"
	"encoding/binary"
	"encoding/hex"
	"strings"
	"unicode/utf16"

	//lint:ignore SA1019 RFC 2759 is made of it
	"golang.org/x/crypto/md4"
)

// Constants of RFC 2759, Section 8.7, and RFC 3079, Section 3.4.
const (
	signing       = "Magic server to client signing constant"
	iteration     = "Pad to make it do more than one iteration"
	masterKey     = "This is the MPPE Master Key"
	serverReceive = "On the client side, this is the send key; on the server side, it is the receive key."
	serverSend    = "On the client side, this is the receive key; on the server side, it is the send key."
)

// MSKLen is the length of the key that a conversation yields, in bytes.
const MSKLen = 64

func hashOf(parts ...[]byte) []byte {
	h := sha1.New()
	for _, p := range parts {
		h.Write(p)
	}
	return h.Sum(nil)
}

// NTHashLen is the length of an NTHash, in bytes.
const NTHashLen = 16

// NTHash is NtPasswordHash: MD4 of the password, which is UTF-8, in UTF-16LE (RFC
// 2759, Section 8.3). A server needs no more than this to check the password. Who
// steals it can log in as the user, here and wherever else MSCHAPv2 is spoken, but
// does not learn the password.
func NTHash(password Secret) Secret {
	h := md4.New()
	for _, u := range utf16.Encode([]rune(string([]byte(password)))) {
		h.Write(binary.LittleEndian.AppendUint16(nil, u))
	}
	return h.Sum(nil)
}

// challengeHash is ChallengeHash, RFC 2759, Section 8.2; the name is without a
// domain.
func challengeHash(peer, server []byte, name string) []byte {
	return hashOf(peer, server, []byte(bareName(name)))[:8]
}

// bareName cuts the domain off DOMAIN\user.
func bareName(name string) string {
	if i := strings.LastIndexByte(name, '\\'); i >= 0 {
		return name[i+1:]
	}
	return name
}

// ntResponse is ChallengeResponse, RFC 2759, Section 8.5: the challenge under
// three DES keys cut from the password's hash.
func ntResponse(challenge, hash []byte) []byte {
	keys := append(bytes.Clone(hash), 0, 0, 0, 0, 0)
	out := make([]byte, 24)
	for i := range 3 {
		// A key of 56 bits becomes one of 64, the low bit of each octet being parity.
		var v uint64
		for _, b := range keys[7*i : 7*i+7] {
			v = v<<8 | uint64(b)
		}
		key := make([]byte, 8)
		for j := range key {
			key[j] = byte(v>>(49-7*j)) << 1
		}
		c, err := des.NewCipher(key)
		if err != nil {
			panic("eap: a DES key has 8 bytes") // and it has
		}
		c.Encrypt(out[8*i:], challenge)
	}
	return out
}

// authenticatorResponse is GenerateAuthenticatorResponse, RFC 2759, Section 8.7:
// 42 characters that prove to the peer that the server knows the password.
func authenticatorResponse(hash, response, challenge []byte) string {
	digest := hashOf(md4Of(hash), response, []byte(signing))
	return "S=" + strings.ToUpper(hex.EncodeToString(hashOf(digest, challenge, []byte(iteration))))
}

func md4Of(b []byte) []byte {
	h := md4.New()
	h.Write(b)
	return h.Sum(nil)
}

// sessionKey is the MSK: the server's receive key and its send key (RFC 3079,
// Section 3.3), filled with zeros.
func sessionKey(hash, response []byte) Secret {
	master := hashOf(md4Of(hash), response, []byte(masterKey))[:16]
	pad1, pad2 := make([]byte, 40), bytes.Repeat([]byte{0xf2}, 40)
	msk := append(Secret{}, hashOf(master, pad1, []byte(serverReceive), pad2)[:16]...)
	msk = append(msk, hashOf(master, pad1, []byte(serverSend), pad2)[:16]...)
	return append(msk, make([]byte, MSKLen-32)...)
}

// Operations of MSCHAPv2 inside EAP, draft-kamath-pppext-eap-mschapv2-02,
// Section 2.
const (
	opChallenge uint8 = 1
	opResponse  uint8 = 2
	opSuccess   uint8 = 3
	opFailure   uint8 = 4
)

const (
	challengeLen = 16
	responseLen  = 49 // peer's challenge (16), reserved (8), NT-Response (24), flags (1)
	maxName      = 256
)

// operation makes the Type-Data of an operation: OpCode (8), MS-CHAPv2-ID (8),
// MS-Length (16), data.
func operation(op, id uint8, data ...[]byte) []byte {
	d := bytes.Join(data, nil)
	n := 4 + len(d)
	return append([]byte{op, id, byte(n >> 8), byte(n)}, d...)
}

// parseOperation reads what operation makes. A peer's answer to success and
// failure is the OpCode alone.
func parseOperation(b []byte) (op, id uint8, data []byte, err error) {
	if len(b) == 1 && (b[0] == opSuccess || b[0] == opFailure) {
		return b[0], 0, nil, nil
	}
	if len(b) < 4 || int(binary.BigEndian.Uint16(b[2:])) != len(b) {
		return 0, 0, nil, ErrFormat
	}
	return b[0], b[1], b[4:], nil
}
