package message

import "fmt"

// An ID is an Identification payload, RFC 7296, Section 3.5.
//
//	 0                   1                   2                   3
//	 0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9 0 1
//	+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
//	| Next Payload  |C|  RESERVED   |         Payload Length        |
//	+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
//	|   ID Type     |                 RESERVED                      |
//	+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
//	~                   Identification Data                         ~
//	+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
type ID struct {
	Responder bool // IDr rather than IDi
	IDType    uint8
	Reserved  [3]byte // AUTH covers these as they came
	Data      []byte
}

// Type is TypeIDi or TypeIDr.
func (i *ID) Type() PayloadType {
	if i.Responder {
		return TypeIDr
	}
	return TypeIDi
}

func parseID(b []byte, responder bool) (*ID, error) {
	if len(b) < 4 {
		return nil, fmt.Errorf("identification of %d bytes: %w", len(b), ErrSyntax)
	}
	return &ID{Responder: responder, IDType: b[0], Reserved: [3]byte(b[1:4]), Data: b[4:]}, nil
}

func (i *ID) appendBody(b []byte) ([]byte, error) {
	return i.AppendRest(b), nil
}

// AppendRest appends the payload without its generic header, the RestOfIDPayload
// that AUTH covers (RFC 7296, Section 2.15).
func (i *ID) AppendRest(b []byte) []byte {
	b = append(b, i.IDType)
	b = append(b, i.Reserved[:]...)
	return append(b, i.Data...)
}

// CertX509 is the certificate encoding "X.509 Certificate - Signature", RFC
// 7296, Section 3.6.
const CertX509 uint8 = 4

// CertRawPublicKey is the certificate encoding of RFC 7670: a
// SubjectPublicKeyInfo in DER.
const CertRawPublicKey uint8 = 15

// A Cert is a Certificate payload, RFC 7296, Section 3.6.
//
//	 0                   1                   2                   3
//	 0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9 0 1
//	+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
//	| Next Payload  |C|  RESERVED   |         Payload Length        |
//	+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
//	| Cert Encoding |                                               |
//	+-+-+-+-+-+-+-+-+                                               +
//	~                       Certificate Data                        ~
//	+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
type Cert struct {
	Encoding uint8
	Data     []byte
}

// Type is TypeCert.
func (*Cert) Type() PayloadType { return TypeCert }

func parseCert(b []byte) (*Cert, error) {
	if len(b) < 1 {
		return nil, fmt.Errorf("empty certificate: %w", ErrSyntax)
	}
	return &Cert{Encoding: b[0], Data: b[1:]}, nil
}

func (c *Cert) appendBody(b []byte) ([]byte, error) {
	return append(append(b, c.Encoding), c.Data...), nil
}

// A CertRequest is a Certificate Request payload, RFC 7296, Section 3.7. It is
// laid out as Cert is; the data names certification authorities and is empty
// for raw public keys.
type CertRequest struct {
	Encoding uint8
	Data     []byte
}

// Type is TypeCertRequest.
func (*CertRequest) Type() PayloadType { return TypeCertRequest }

func parseCertRequest(b []byte) (*CertRequest, error) {
	if len(b) < 1 {
		return nil, fmt.Errorf("empty certificate request: %w", ErrSyntax)
	}
	return &CertRequest{Encoding: b[0], Data: b[1:]}, nil
}

func (c *CertRequest) appendBody(b []byte) ([]byte, error) {
	return append(append(b, c.Encoding), c.Data...), nil
}

// Authentication methods.
const (
	AuthRSA              uint8 = 1 // PKCS #1 v1.5
	AuthSharedKey        uint8 = 2
	AuthECDSA256         uint8 = 9  // on P-256 with SHA-256, RFC 4754
	AuthECDSA384         uint8 = 10 // on P-384 with SHA-384
	AuthECDSA521         uint8 = 11 // on P-521 with SHA-512
	AuthDigitalSignature uint8 = 14 // RFC 7427
)

// An Auth is an Authentication payload, RFC 7296, Section 3.8.
//
//	 0                   1                   2                   3
//	 0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9 0 1
//	+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
//	| Next Payload  |C|  RESERVED   |         Payload Length        |
//	+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
//	| Auth Method   |                RESERVED                       |
//	+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
//	~                      Authentication Data                      ~
//	+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
type Auth struct {
	Method uint8
	Data   []byte
}

// Type is TypeAuth.
func (*Auth) Type() PayloadType { return TypeAuth }

func parseAuth(b []byte) (*Auth, error) {
	if len(b) < 4 {
		return nil, fmt.Errorf("authentication of %d bytes: %w", len(b), ErrSyntax)
	}
	return &Auth{Method: b[0], Data: b[4:]}, nil
}

func (a *Auth) appendBody(b []byte) ([]byte, error) {
	return append(append(b, a.Method, 0, 0, 0), a.Data...), nil
}
