package config

import _ "embed"

// ReferenceServer is a server.toml with every key explained.
//
//go:embed reference-server.toml
var ReferenceServer string

// ReferenceClient is a client.toml with every key explained.
//
//go:embed reference-client.toml
var ReferenceClient string
