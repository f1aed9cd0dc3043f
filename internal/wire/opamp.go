package wire

import (
	"bytes"
	"crypto/sha256"
	"encoding/json"
	"maps"
	"slices"
	"time"

	"github.com/open-telemetry/opamp-go/protobufs"
	"google.golang.org/protobuf/proto"

	"github.com/holdfast-security/holdfast"
)

// Capability is the custom capability, in the sense of OpAMP, that a Holdfast
// host and its control plane share.
const Capability = "io.holdfast.host.v1"

// The custom messages of Capability. Their data is JSON.
const (
	ReportType = "report"      // host to server: holdfast.HostReport
	RenewType  = "lease.renew" // host to server: LeaseRequest
	LeaseType  = "lease"       // server to host: Lease
)

// LeaseRequest asks, just before activation, whether an offer still stands.
type LeaseRequest struct {
	Lease string `json:"lease"`
}

// Lease is the answer. Without Granted the host must not activate.
type Lease struct {
	Lease   string    `json:"lease"`
	Granted bool      `json:"granted"`
	Expires time.Time `json:"expires,omitzero"`
	Reason  string    `json:"reason,omitempty"` // why not, for people
}

// Attribute keys: those of OpenTelemetry's semantic conventions where there is
// one, else ours.
const (
	keyService  = "service.name"
	keyInstance = "service.instance.id"
	keyVersion  = "service.version"
	keyHostname = "host.name"
	keyArch     = "host.arch"
	keyOS       = "os.type"
	keyKernel   = "holdfast.kernel"
	keyDistro   = "holdfast.distro"
	keyRole     = "holdfast.role"
	keyBuild    = "holdfast.build"
	keySensor   = "holdfast.sensor"

	serviceName = "io.holdfast.agent"
)

// Description says who a host is. The server believes the identity in the
// client certificate, never the instance id here.
func Description(id holdfast.HostID, a holdfast.Attributes) *protobufs.AgentDescription {
	return &protobufs.AgentDescription{
		IdentifyingAttributes: []*protobufs.KeyValue{
			keyValue(keyService, serviceName),
			keyValue(keyInstance, string(id)),
			keyValue(keyVersion, a.Version),
		},
		NonIdentifyingAttributes: []*protobufs.KeyValue{
			keyValue(keyHostname, a.Hostname),
			keyValue(keyOS, a.OS),
			keyValue(keyArch, a.Arch),
			keyValue(keyKernel, a.Kernel),
			keyValue(keyDistro, a.Distro),
			keyValue(keyRole, a.Role),
			keyValue(keyBuild, string(a.Build)),
			keyValue(keySensor, a.Sensor),
		},
	}
}

func keyValue(key, value string) *protobufs.KeyValue {
	return &protobufs.KeyValue{Key: key, Value: &protobufs.AnyValue{Value: &protobufs.AnyValue_StringValue{StringValue: value}}}
}

const maxAttributes = 64

// AttributesOf reads a description. Attributes it does not know are ignored,
// so that any OpAMP agent can introduce itself.
func AttributesOf(d *protobufs.AgentDescription) (holdfast.Attributes, error) {
	var a holdfast.Attributes
	var build string
	into := map[string]*string{
		keyVersion: &a.Version, keyHostname: &a.Hostname, keyOS: &a.OS, keyArch: &a.Arch, keyKernel: &a.Kernel,
		keyDistro: &a.Distro, keyRole: &a.Role, keyBuild: &build, keySensor: &a.Sensor,
	}
	if len(d.GetIdentifyingAttributes())+len(d.GetNonIdentifyingAttributes()) > maxAttributes {
		return holdfast.Attributes{}, invalid("agent description", "has more than 64 attributes")
	}
	for _, kv := range slices.Concat(d.GetIdentifyingAttributes(), d.GetNonIdentifyingAttributes()) {
		if to := into[kv.GetKey()]; to != nil {
			*to = kv.GetValue().GetStringValue()
		}
	}
	if build != "" {
		var err error
		if a.Build, err = holdfast.ParseDigest(build); err != nil {
			return holdfast.Attributes{}, err
		}
	}
	return a, CheckAttributes(a)
}

// CheckAttributes refuses attributes that no honest host has.
func CheckAttributes(a holdfast.Attributes) error {
	for _, f := range []struct{ name, value string }{
		{"hostname", a.Hostname},
		{"os", a.OS},
		{"arch", a.Arch},
		{"kernel", a.Kernel},
		{"distro", a.Distro},
		{"role", a.Role},
		{"agent_version", a.Version},
		{"sensor", a.Sensor},
	} {
		if err := text(f.name, f.value); err != nil {
			return err
		}
	}
	if a.Build != "" {
		if _, err := holdfast.ParseDigest(string(a.Build)); err != nil {
			return err
		}
	}
	return nil
}

// The download headers of a package offer.
const (
	headerLease   = "Holdfast-Lease"
	headerExpires = "Holdfast-Lease-Expires" // RFC 3339
	headerArm     = "Holdfast-Arm"           // "new" or "placebo"
	headerRelease = "Holdfast-Release"
	headerRecall  = "Holdfast-Recall" // digest
)

// Packages writes an offer as OpAMP's packages available: one package, the
// channel. Its bytes come through the content repositories, so the download
// URL is only the place of the file below the server's address.
func Packages(o holdfast.Offer) *protobufs.PackagesAvailable {
	headers := []*protobufs.Header{{Key: headerLease, Value: o.Lease}}
	add := func(key, value string) {
		if value != "" {
			headers = append(headers, &protobufs.Header{Key: key, Value: value})
		}
	}
	if !o.Expires.IsZero() {
		add(headerExpires, o.Expires.UTC().Format(time.RFC3339Nano))
	}
	add(headerArm, string(o.Arm))
	add(headerRelease, string(o.Release))
	add(headerRecall, string(o.Recall))
	file := &protobufs.DownloadableFile{Headers: &protobufs.Headers{Headers: headers}, ContentHash: hashOf(o.Digest)}
	if o.Digest != "" {
		file.DownloadUrl = "/content/" + o.Digest.Hex()
	}
	p := &protobufs.PackageAvailable{
		Type:    protobufs.PackageType_PackageType_TopLevel,
		Version: o.Version,
		File:    file,
		Hash:    hashOf(o.Digest),
	}
	all := sha256.New()
	for _, s := range []string{string(o.Channel), string(o.Digest), o.Lease, string(o.Recall)} {
		all.Write([]byte(s))
		all.Write([]byte{0})
	}
	return &protobufs.PackagesAvailable{
		Packages:        map[string]*protobufs.PackageAvailable{string(o.Channel): p},
		AllPackagesHash: all.Sum(nil),
	}
}

// OfferOf reads what Packages wrote.
func OfferOf(p *protobufs.PackagesAvailable) (holdfast.Offer, error) {
	var none holdfast.Offer
	if len(p.GetPackages()) != 1 {
		return none, invalid("package offer", "must name exactly one channel")
	}
	var o holdfast.Offer
	for name, pkg := range p.Packages {
		o.Channel, o.Version = holdfast.Channel(name), pkg.GetVersion()
		var err error
		if o.Digest, err = digestOf("package hash", pkg.GetHash()); err != nil {
			return none, err
		}
		headers := pkg.GetFile().GetHeaders().GetHeaders()
		if len(headers) > 16 {
			return none, invalid("package offer", "has more than 16 headers")
		}
		for _, h := range headers {
			if err := text(h.GetKey(), h.GetValue()); err != nil {
				return none, err
			}
			switch h.GetKey() {
			case headerLease:
				o.Lease = h.GetValue()
			case headerExpires:
				if o.Expires, err = time.Parse(time.RFC3339Nano, h.GetValue()); err != nil {
					return none, invalid(headerExpires, "is not an RFC 3339 time")
				}
			case headerArm:
				o.Arm = holdfast.Arm(h.GetValue())
			case headerRelease:
				o.Release = holdfast.ReleaseID(h.GetValue())
			case headerRecall:
				if o.Recall, err = holdfast.ParseDigest(h.GetValue()); err != nil {
					return none, err
				}
			}
		}
	}
	return o, checkOffer(o)
}

func checkOffer(o holdfast.Offer) error {
	if err := text("package name", string(o.Channel)); err != nil {
		return err
	}
	if err := text("package version", o.Version); err != nil {
		return err
	}
	switch {
	case o.Channel == "":
		return invalid("package name", "is empty")
	case o.Lease == "":
		return invalid(headerLease, "is missing")
	case o.Arm != holdfast.New && o.Arm != holdfast.Placebo && o.Recall == "":
		return invalid(headerArm, `is neither "new" nor "placebo"`)
	case o.Digest == "" && o.Recall == "" && o.Arm != holdfast.Placebo:
		return invalid("package hash", "is missing")
	}
	return nil
}

// Statuses says per channel what the host runs, what it was offered, and what
// became of it, in OpAMP's own terms. A Holdfast server reads the HostReport
// instead, which says more; other OpAMP servers read this.
func Statuses(r holdfast.HostReport, versions map[holdfast.Digest]string) *protobufs.PackageStatuses {
	s := &protobufs.PackageStatuses{Packages: map[string]*protobufs.PackageStatus{}, ServerProvidedAllPackagesHash: []byte(r.Activation)}
	channels := map[holdfast.Channel]bool{}
	for _, g := range []holdfast.Generation{r.Running, r.Attempted, r.Failed} {
		for c := range g {
			channels[c] = true
		}
	}
	for _, c := range slices.Sorted(maps.Keys(channels)) {
		running, attempted := r.Running[c], r.Attempted[c]
		p := &protobufs.PackageStatus{
			Name:                 string(c),
			AgentHasVersion:      versions[running],
			AgentHasHash:         hashOf(running),
			ServerOfferedVersion: versions[attempted],
			ServerOfferedHash:    hashOf(attempted),
			Status:               protobufs.PackageStatusEnum_PackageStatusEnum_Installed,
		}
		switch {
		case r.Failed[c] != "" && r.Failed[c] == attempted && attempted != running:
			p.Status = protobufs.PackageStatusEnum_PackageStatusEnum_InstallFailed
			p.ErrorMessage = clip(r.Reason, maxText)
		case attempted != "" && attempted != running:
			p.Status = protobufs.PackageStatusEnum_PackageStatusEnum_Installing
		case r.Probation && attempted == running:
			p.Status = protobufs.PackageStatusEnum_PackageStatusEnum_Installing
		}
		s.Packages[string(c)] = p
	}
	return s
}

// Custom writes v as a custom message of Capability.
func Custom(kind string, v any) (*protobufs.CustomMessage, error) {
	data, err := json.Marshal(v)
	if err != nil {
		return nil, holdfast.Errorf(holdfast.Internal, "encode %s: %w", kind, err)
	}
	return &protobufs.CustomMessage{Capability: Capability, Type: kind, Data: data}, nil
}

const maxCustom = 32 << 10

// readCustom decodes the data of a custom message into v. Fields it does not
// know are ignored: the other side may be newer.
func readCustom(m *protobufs.CustomMessage, v any) error {
	if len(m.GetData()) > maxCustom {
		return invalid("custom message "+clip(m.GetType(), 32), "is longer than 32 KiB")
	}
	if err := json.NewDecoder(bytes.NewReader(m.GetData())).Decode(v); err != nil {
		return &holdfast.Error{Kind: holdfast.Invalid, Where: "custom message " + clip(m.GetType(), 32), Err: err}
	}
	return nil
}

// LeaseRequestOf reads a custom message of type RenewType.
func LeaseRequestOf(m *protobufs.CustomMessage) (LeaseRequest, error) {
	var r LeaseRequest
	if err := readCustom(m, &r); err != nil {
		return LeaseRequest{}, err
	}
	return r, text("lease", r.Lease)
}

// LeaseOf reads a custom message of type LeaseType.
func LeaseOf(m *protobufs.CustomMessage) (Lease, error) {
	var l Lease
	if err := readCustom(m, &l); err != nil {
		return Lease{}, err
	}
	l.Reason = clip(l.Reason, maxText)
	return l, text("lease", l.Lease)
}

// ReportOf reads a custom message of type ReportType.
func ReportOf(m *protobufs.CustomMessage) (holdfast.HostReport, error) {
	var r holdfast.HostReport
	if err := readCustom(m, &r); err != nil {
		return holdfast.HostReport{}, err
	}
	return r, checkReport(&r)
}

const (
	maxChannels = 16
	maxShunned  = 256

	maxSuspended = 32
	maxCosts     = 8
	maxForgotten = 32
)

func checkReport(r *holdfast.HostReport) error {
	for _, f := range []struct{ name, value string }{{"boot", r.Boot}, {"activation", r.Activation}} {
		if err := text(f.name, f.value); err != nil {
			return err
		}
	}
	for _, g := range []struct {
		name string
		of   holdfast.Generation
	}{{"running", r.Running}, {"previous", r.Previous}, {"attempted", r.Attempted}, {"failed", r.Failed}} {
		if len(g.of) > maxChannels {
			return invalid(g.name, "names more than 16 channels")
		}
		for c, d := range g.of {
			if err := text(g.name, string(c)); err != nil {
				return err
			}
			if _, err := holdfast.ParseDigest(string(d)); err != nil {
				return err
			}
		}
	}
	if len(r.Shunned) > maxShunned {
		return invalid("shunned", "names more than 256 digests")
	}
	for _, d := range r.Shunned {
		if _, err := holdfast.ParseDigest(string(d)); err != nil {
			return err
		}
	}
	if len(r.Suspended) > maxSuspended {
		return invalid("suspended", "names more than 32 rules")
	}
	for i, x := range r.Suspended {
		if err := text("suspended", x.Rule); err != nil {
			return err
		}
		r.Suspended[i].Reason = clip(x.Reason, maxText)
	}
	r.Reason = clip(r.Reason, 1024)
	tidyCosts(r)
	return nil
}

// tidyCosts drops what no worker says of costs. They are there to be looked at:
// a report is not refused for them.
func tidyCosts(r *holdfast.HostReport) {
	r.Costs = slices.DeleteFunc(r.Costs[:min(len(r.Costs), maxCosts)], func(c holdfast.RuleCost) bool {
		return text("costs", c.Rule) != nil || !(c.NsPerEvent >= 0 && c.NsPerEvent <= 1e12 && c.Share >= 0 && c.Share <= 1)
	})
	r.Forgotten = slices.DeleteFunc(r.Forgotten[:min(len(r.Forgotten), maxForgotten)], func(f holdfast.Forgotten) bool {
		return text("forgotten", f.Rule) != nil
	})
}

// Unmarshal decodes an OpAMP message, bounded by MaxMessage.
func Unmarshal(b []byte, m proto.Message) error {
	if len(b) > MaxMessage {
		return invalid("OpAMP message", "is longer than 64 KiB")
	}
	if len(b) > 0 && b[0] == 0 { // the header of OpAMP's WebSocket framing: a varint that is zero
		b = b[1:]
	}
	if err := proto.Unmarshal(b, m); err != nil {
		return &holdfast.Error{Kind: holdfast.Invalid, Where: "OpAMP message", Err: err}
	}
	return nil
}

// Marshal encodes an OpAMP message with its WebSocket header.
func Marshal(m proto.Message) ([]byte, error) {
	b, err := proto.MarshalOptions{}.MarshalAppend([]byte{0}, m)
	if err != nil {
		return nil, holdfast.Errorf(holdfast.Internal, "encode OpAMP message: %w", err)
	}
	return b, nil
}
