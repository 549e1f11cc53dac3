package main

import (
	"context"
	"encoding/hex"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"sync"

	"github.com/spf13/cobra"

	"github.com/godwit-net/godwit/config"
	"github.com/godwit-net/godwit/ipsec/esp"
	"github.com/godwit-net/godwit/ipsec/ike"
)

// keyLogFlag adds the flag that exports keys.
func keyLogFlag(cmd *cobra.Command) *string {
	return cmd.Flags().String("key-log", "", "DANGER, for debugging: write the keys of all SAs to this folder, for Wireshark to decrypt captures with")
}

// A keyLog writes the tables that Wireshark reads keys from. The folder serves
// as WIRESHARK_CONFIG_DIR.
type keyLog struct {
	dir    string
	logger *slog.Logger
	mu     sync.Mutex
}

// openKeyLog prepares a folder for keys; nothing is logged if dir is empty.
func openKeyLog(dir string, logger *slog.Logger) (ike.KeyLog, error) {
	if dir == "" {
		return nil, nil
	}
	err := os.MkdirAll(dir, 0o700)
	if err == nil {
		err = os.WriteFile(filepath.Join(dir, "preferences"), []byte("esp.enable_encryption_decode: TRUE\nesp.enable_authentication_check: TRUE\n"), 0o600)
	}
	if err != nil {
		return nil, &config.Error{What: "cannot write keys: " + lastCause(err), Where: dir, Do: "name another folder with --key-log", Err: err}
	}
	logger.LogAttrs(context.Background(), slog.LevelWarn, "KEYS ARE WRITTEN TO A FOLDER: whoever reads it can read everything in the tunnel", slog.String("folder", dir))
	return &keyLog{dir: dir, logger: logger}, nil
}

func (k *keyLog) add(file, line string) {
	k.mu.Lock()
	defer k.mu.Unlock()
	f, err := os.OpenFile(filepath.Join(k.dir, file), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err == nil {
		_, err = f.WriteString(line + "\n")
		_ = f.Close()
	}
	if err != nil {
		k.logger.LogAttrs(context.Background(), slog.LevelError, "keys not written", slog.Any("err", err))
	}
}

// IKE adds a line to ikev2_decryption_table. Wireshark has no
// ChaCha20-Poly1305.
func (k *keyLog) IKE(initiatorSPI, responderSPI uint64, initiatorKey, responderKey ike.Secret, a esp.Algorithm) {
	bits := map[esp.Algorithm]int{esp.AES128GCM: 128, esp.AES256GCM: 256}[a]
	if bits == 0 {
		return
	}
	k.add("ikev2_decryption_table", fmt.Sprintf(`%016x,%016x,%s,%s,"AES-GCM-%d with 16 octet ICV [RFC5282]",,,"NONE [RFC4306]"`,
		initiatorSPI, responderSPI, hex.EncodeToString(initiatorKey), hex.EncodeToString(responderKey), bits))
}

// ESP adds lines to esp_sa, for any addresses: an SA outlives them.
func (k *keyLog) ESP(spi uint32, key ike.Secret, a esp.Algorithm) {
	if a == esp.ChaCha20Poly1305 {
		return
	}
	for _, family := range []string{"IPv4", "IPv6"} {
		k.add("esp_sa", fmt.Sprintf(`"%s","*","*","0x%08x","AES-GCM with 16 octet ICV [RFC4106]","0x%s","NULL",""`, family, spi, hex.EncodeToString(key)))
	}
}
