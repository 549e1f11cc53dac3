package client

import "time"

// A Status is what `godwit status` shows; its JSON names are an interface.
type Status struct {
	State         string         `json:"state"` // connecting, connected, moving, stopped
	Server        string         `json:"server"`
	Inner         []string       `json:"inner"`
	Path          *PathStatus    `json:"path"`
	Registrations []Registration `json:"registrations"`

	BytesSent       uint64 `json:"bytes_sent"`     // inner packets
	BytesReceived   uint64 `json:"bytes_received"` // inner packets
	PacketsSent     uint64 `json:"packets_sent"`   // ESP packets
	PacketsReceived uint64 `json:"packets_received"`
	PacketsDropped  uint64 `json:"packets_dropped"` // not ours, replayed, or damaged
	IKESent         uint64 `json:"ike_sent"`        // IKE messages
	IKEReceived     uint64 `json:"ike_received"`

	// LastError is why there is no connection, in words for a person.
	LastError string `json:"last_error,omitempty"`
}

// A PathStatus is the carrier in use.
type PathStatus struct {
	Encapsulation string    `json:"encapsulation"`
	Local         string    `json:"local"`
	Remote        string    `json:"remote"`
	RTTms         float64   `json:"rtt_ms"`
	Verdict       string    `json:"verdict"`
	Since         time.Time `json:"since"`
}

// A Registration is one round of RREQ and RREP.
type Registration struct {
	Number     uint32    `json:"number"`
	Trigger    string    `json:"trigger"`
	Started    time.Time `json:"started"`
	Selected   string    `json:"selected"`
	Verdict    string    `json:"verdict"`
	Revision   uint16    `json:"revision"`
	DurationMs float64   `json:"duration_ms"` // until the first usable reply
	Done       bool      `json:"done"`
	Copies     []Copy    `json:"copies"`
}

// A Copy is what became of one registration over one encapsulation.
type Copy struct {
	Encapsulation string  `json:"encapsulation"`
	Local         string  `json:"local"`
	Remote        string  `json:"remote"`
	Sent          int     `json:"sent"`
	Answered      bool    `json:"answered"`
	RTTms         float64 `json:"rtt_ms"`
	Verdict       string  `json:"verdict"`
	Revision      uint16  `json:"revision"`
	Error         string  `json:"error,omitempty"`
}
