// Package esp seals and opens ESP packets (RFC 4303) with AEAD ciphers.
//
// It does no I/O and keeps no timers: an SA numbers its packets, the caller
// decides when to rekey and which encapsulation carries them.
//
// # Limitations
//
// AH (RFC 4302), transport mode and ciphers that are not AEAD are not
// implemented.
package esp

// An Algorithm is an AEAD cipher with a 16-byte ICV.
type Algorithm uint8

// The algorithms, by the names of RFC 4106 and RFC 7634.
const (
	AES128GCM Algorithm = iota + 1
	AES256GCM
	ChaCha20Poly1305
)
