// Package message reads and writes IKEv2 messages (RFC 7296, Section 3).
//
// It knows the layout of payloads and nothing of what they mean together. It
// decrypts nothing: an Encrypted payload is handed out as it came.
//
// Parsing copies nothing: what it returns points into the bytes it was given.
package message

// NotifyType is the type of a Notify payload, RFC 7296, Section 3.10.1.
type NotifyType uint16
