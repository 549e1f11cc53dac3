package message

import (
	"encoding/binary"
	"fmt"
)

// MaxConfigAttributes bounds the attributes of one configuration payload.
const MaxConfigAttributes = 64

// ConfigType is the kind of a Configuration payload.
type ConfigType uint8

// Configuration types.
const (
	ConfigRequest ConfigType = 1
	ConfigReply   ConfigType = 2
	ConfigSet     ConfigType = 3
	ConfigAck     ConfigType = 4
)

// A Config is a Configuration payload, RFC 7296, Section 3.15.
//
//	 0                   1                   2                   3
//	 0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9 0 1
//	+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
//	| Next Payload  |C|  RESERVED   |         Payload Length        |
//	+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
//	|   CFG Type    |                    RESERVED                   |
//	+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
//	~                   Configuration Attributes                    ~
//	+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
type Config struct {
	ConfigType ConfigType
	Attributes []ConfigAttribute
}

// A ConfigAttribute is one attribute, RFC 7296, Section 3.15.1.
//
//	 0                   1                   2                   3
//	 0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9 0 1
//	+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
//	|R|         Attribute Type      |            Length             |
//	+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
//	~                             Value                             ~
//	+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
type ConfigAttribute struct {
	Type  uint16 // 15 bits
	Value []byte
}

// Type is TypeConfig.
func (*Config) Type() PayloadType { return TypeConfig }

func parseConfig(b []byte) (*Config, error) {
	if len(b) < 4 {
		return nil, fmt.Errorf("configuration of %d bytes: %w", len(b), ErrSyntax)
	}
	c := &Config{ConfigType: ConfigType(b[0])}
	for b = b[4:]; len(b) > 0; {
		if len(b) < 4 || len(c.Attributes) == MaxConfigAttributes {
			return nil, fmt.Errorf("configuration attributes: %w", ErrSyntax)
		}
		n := int(binary.BigEndian.Uint16(b[2:])) // Length (16)
		if len(b) < 4+n {
			return nil, fmt.Errorf("configuration attribute cut off: %w", ErrSyntax)
		}
		c.Attributes = append(c.Attributes, ConfigAttribute{
			Type:  binary.BigEndian.Uint16(b) & 0x7fff,
			Value: b[4 : 4+n],
		})
		b = b[4+n:]
	}
	return c, nil
}

func (c *Config) appendBody(b []byte) ([]byte, error) {
	if len(c.Attributes) > MaxConfigAttributes {
		return nil, fmt.Errorf("%d configuration attributes: %w", len(c.Attributes), ErrTooBig)
	}
	b = append(b, byte(c.ConfigType), 0, 0, 0)
	for _, a := range c.Attributes {
		if len(a.Value) > 0xffff {
			return nil, fmt.Errorf("configuration attribute: %w", ErrTooBig)
		}
		b = binary.BigEndian.AppendUint16(b, a.Type&0x7fff)
		b = binary.BigEndian.AppendUint16(b, uint16(len(a.Value)))
		b = append(b, a.Value...)
	}
	return b, nil
}
