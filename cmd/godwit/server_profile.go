package main

import (
	"crypto/sha256"
	"encoding/base64"
	"encoding/pem"
	"encoding/xml"
	"fmt"
	"net"
	"strings"
	"text/template"

	"github.com/spf13/cobra"

	"github.com/godwit-net/godwit/config"
)

func newServerUserProfile() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "profile NAME",
		Short: "Print what sets a user's device up",
		Long: `Prints what sets the device of a user up, with algorithms that the server takes and
with the server's authority, if it has one of its own. Passwords are not in it, as
the server does not know them; a user's shared secret is.

  apple       a configuration profile (.mobileconfig) for iOS and macOS: send it to
              the device and open it there
  windows     commands for PowerShell, run as administrator
  strongswan  a swanctl.conf; write the password into it`,
		Example: `  godwit server user profile carol > carol.mobileconfig
  godwit server user profile carol --for windows > carol.ps1`,
		Args: takes("NAME"),
	}
	dir := dirFlag(cmd, "server")
	device := cmd.Flags().String("for", "apple", "apple, windows or strongswan")
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		text, ok := profiles[*device]
		if !ok {
			return usage(cmd, "wrong --for: "+*device, "write apple, windows or strongswan")
		}
		d, err := loadServer(dir)
		if err != nil {
			return err
		}
		p, err := profileOf(d, args[0])
		if err != nil {
			return err
		}
		if *device == "windows" && !p.Login {
			return &config.Error{What: "Windows' own client logs in by a password alone", Where: args[0], Do: "make a user with --password"}
		}
		t := template.Must(template.New("").Funcs(template.FuncMap{
			"xml": xmlText, "ps": powerShell, "quoted": swanctlText, "uuid": profileUUID, "base64": base64.StdEncoding.EncodeToString, "pem": certificatePEM,
		}).Parse(text))
		if err := t.Execute(cmd.OutOrStdout(), p); err != nil {
			return &config.Error{What: "cannot write: " + lastCause(err), Where: "standard output", Err: err}
		}
		return nil
	}
	return cmd
}

// A deviceSetup is what a device has to know.
type deviceSetup struct {
	Server    string // that it dials
	Remote    string // what the server calls itself
	Name      string
	Local     string // identity, or the name to log in with
	Login     bool
	PSK       string // empty: by a password
	Authority []byte // in DER; nil: known to the device
}

func profileOf(d *config.ServerDir, name string) (*deviceSetup, error) {
	k := d.Config.IKEv2
	if k == nil {
		return nil, &config.Error{What: "the server lets only godwit clients in", Where: d.Path() + ", server.toml", Do: "add the table [ikev2]"}
	}
	records, err := d.Clients()
	if err != nil {
		return nil, err
	}
	for _, r := range records {
		if r.Name != name {
			continue
		}
		host, _, _ := net.SplitHostPort(d.Config.Endpoint)
		p := &deviceSetup{Server: host, Remote: k.Identity, Name: r.Name, Local: r.Identity, PSK: r.PSK, Login: r.NTHash != nil}
		switch {
		case p.Login && !takesLogins(d):
			return nil, &config.Error{What: "the server has no certificate to prove itself by", Where: d.Path() + ", server.toml, [ikev2]", Do: "run godwit server certificate"}
		case p.Login:
			p.Authority = d.Authority()
		case p.PSK == "":
			return nil, &config.Error{What: "no user with a password or a shared secret", Where: name, Do: "make one with godwit server user add"}
		}
		return p, nil
	}
	return nil, &config.Error{What: "no client of this name", Where: name, Do: "godwit server clients lists them", Err: config.ErrUnknownClient}
}

// xmlText escapes text for XML.
func xmlText(s string) (string, error) {
	var b strings.Builder
	err := xml.EscapeText(&b, []byte(s))
	return b.String(), err
}

// powerShell quotes text so that nothing in it is expanded.
func powerShell(s string) string { return "'" + strings.ReplaceAll(s, "'", "''") + "'" }

// swanctlText quotes text for swanctl.conf.
func swanctlText(s string) string {
	return `"` + strings.NewReplacer(`\`, `\\`, `"`, `\"`).Replace(s) + `"`
}

// profileUUID names a part of a profile, the same each time, so that a device
// replaces what it has.
func profileUUID(p *deviceSetup, part string) string {
	h := sha256.Sum256([]byte(p.Server + "\x00" + p.Name + "\x00" + part))
	return strings.ToUpper(fmt.Sprintf("%x-%x-%x-%x-%x", h[:4], h[4:6], h[6:8], h[8:10], h[10:16]))
}

func certificatePEM(der []byte) string {
	return string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}))
}

// profiles are the texts for each kind of device. Apple's keys are explained in
// its Device Management documentation, VPN.IKEv2; without the two tables of
// parameters older systems offer no AEAD.
var profiles = map[string]string{
	"apple": `<?xml version="1.0" encoding="UTF-8"?>
<!DOCTYPE plist PUBLIC "-//Apple//DTD PLIST 1.0//EN" "http://www.apple.com/DTDs/PropertyList-1.0.dtd">
<plist version="1.0">
<dict>
	<key>PayloadType</key><string>Configuration</string>
	<key>PayloadVersion</key><integer>1</integer>
	<key>PayloadIdentifier</key><string>net.godwit.{{uuid . "profile"}}</string>
	<key>PayloadUUID</key><string>{{uuid . "profile"}}</string>
	<key>PayloadDisplayName</key><string>{{xml .Remote}}</string>
	<key>PayloadContent</key>
	<array>
{{- if .Authority}}
		<dict>
			<key>PayloadType</key><string>com.apple.security.root</string>
			<key>PayloadVersion</key><integer>1</integer>
			<key>PayloadIdentifier</key><string>net.godwit.{{uuid . "authority"}}</string>
			<key>PayloadUUID</key><string>{{uuid . "authority"}}</string>
			<key>PayloadDisplayName</key><string>Authority of {{xml .Remote}}</string>
			<key>PayloadContent</key><data>{{base64 .Authority}}</data>
		</dict>
{{- end}}
		<dict>
			<key>PayloadType</key><string>com.apple.vpn.managed</string>
			<key>PayloadVersion</key><integer>1</integer>
			<key>PayloadIdentifier</key><string>net.godwit.{{uuid . "vpn"}}</string>
			<key>PayloadUUID</key><string>{{uuid . "vpn"}}</string>
			<key>PayloadDisplayName</key><string>{{xml .Remote}}</string>
			<key>UserDefinedName</key><string>{{xml .Remote}}</string>
			<key>VPNType</key><string>IKEv2</string>
			<key>IKEv2</key>
			<dict>
				<key>RemoteAddress</key><string>{{xml .Server}}</string>
				<key>RemoteIdentifier</key><string>{{xml .Remote}}</string>
				<key>LocalIdentifier</key><string>{{xml .Local}}</string>
{{- if .Login}}
				<key>AuthenticationMethod</key><string>Certificate</string>
				<key>ExtendedAuthEnabled</key><integer>1</integer>
				<key>AuthName</key><string>{{xml .Local}}</string>
{{- else}}
				<key>AuthenticationMethod</key><string>SharedSecret</string>
				<key>SharedSecret</key><string>{{xml .PSK}}</string>
				<key>ExtendedAuthEnabled</key><integer>0</integer>
{{- end}}
				<key>IKESecurityAssociationParameters</key>
				<dict>
					<key>EncryptionAlgorithm</key><string>AES-256-GCM</string>
					<key>IntegrityAlgorithm</key><string>SHA2-256</string>
					<key>DiffieHellmanGroup</key><integer>19</integer>
				</dict>
				<key>ChildSecurityAssociationParameters</key>
				<dict>
					<key>EncryptionAlgorithm</key><string>AES-256-GCM</string>
					<key>IntegrityAlgorithm</key><string>SHA2-256</string>
					<key>DiffieHellmanGroup</key><integer>19</integer>
				</dict>
				<key>EnablePFS</key><integer>1</integer>
				<key>DisableMOBIKE</key><integer>0</integer>
				<key>DisableRedirect</key><integer>1</integer>
				<key>DeadPeerDetectionRate</key><string>Medium</string>
			</dict>
		</dict>
	</array>
</dict>
</plist>
`,
	"windows": `# Run in PowerShell as administrator; then connect in Settings, Network & internet,
# VPN, with the user name {{.Local}}
{{- if .Authority}}
$file = Join-Path $env:TEMP 'godwit-authority.crt'
@'
{{pem .Authority}}'@ | Set-Content -Encoding ascii -Path $file
Import-Certificate -FilePath $file -CertStoreLocation Cert:\LocalMachine\Root
Remove-Item $file
{{- end}}
Add-VpnConnection -Name {{ps .Remote}} -ServerAddress {{ps .Server}} -TunnelType Ikev2 -AuthenticationMethod Eap -EncryptionLevel Maximum -RememberCredential
Set-VpnConnectionIPsecConfiguration -ConnectionName {{ps .Remote}} -AuthenticationTransformConstants GCMAES256 -CipherTransformConstants GCMAES256 -EncryptionMethod GCMAES256 -IntegrityCheckMethod SHA256 -DHGroup ECP256 -PfsGroup ECP256 -Force
`,
	"strongswan": `connections {
  godwit {
    version = 2
    remote_addrs = {{.Server}}
    vips = 0.0.0.0
    proposals = aes256gcm16-aes128gcm16-prfsha256-x25519-ecp256
    local {
{{- if .Login}}
      auth = eap-mschapv2
      eap_id = {{quoted .Local}}
{{- else}}
      auth = psk
      id = {{quoted .Local}}
{{- end}}
    }
    remote {
      auth = {{if .Login}}pubkey{{else}}psk{{end}}
      id = {{quoted .Remote}}
{{- if .Authority}}
      cacerts = godwit-authority.crt
{{- end}}
    }
    children {
      net {
        remote_ts = 0.0.0.0/0
        esp_proposals = aes256gcm16-aes128gcm16-x25519-ecp256-noesn
      }
    }
  }
}
secrets {
{{- if .Login}}
  eap-godwit {
    id = {{quoted .Local}}
    secret = "the password"
  }
{{- else}}
  ike-godwit {
    id-1 = {{quoted .Local}}
    id-2 = {{quoted .Remote}}
    secret = {{quoted .PSK}}
  }
{{- end}}
}
{{- if .Authority}}
# /etc/swanctl/x509ca/godwit-authority.crt:
{{pem .Authority}}{{end}}
`,
}
