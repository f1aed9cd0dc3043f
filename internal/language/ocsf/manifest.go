package ocsf

import "github.com/holdfast-security/holdfast"

// Limits of this build. Rules and rule bytes fit all of SigmaHQ several times.
var limits = holdfast.Limits{
	BundleBytes: 64 << 20,
	Rules:       20_000,
	RuleBytes:   256 << 10,
	ValueBytes:  32 << 10,
}

// SensorClasses returns the classes this build's sensor supplies.
func SensorClasses() []*Class { return []*Class{processActivity} }

// Manifest is what a build of this source says it can do.
func Manifest(version, platform string) holdfast.Manifest {
	m := holdfast.Manifest{Schema: 1, Version: version, Platform: platform, Limits: limits}
	for _, c := range SensorClasses() {
		m.Classes = append(m.Classes, c.EventClass())
	}
	return m
}

func sigmaNames(uid int, path string) []string {
	for _, c := range SensorClasses() {
		if c.UID == uid {
			if i, ok := c.Ordinal(path); ok {
				return c.Fields[i].Names
			}
		}
	}
	for _, f := range laterFields {
		if f.Path == path {
			return f.Names
		}
	}
	return nil
}

// laterFields are names for paths that builds newer than this one may supply,
// so that an older control plane can check rules against their manifests.
var laterFields = []Field{
	{"process.parent_process.working_directory", "string", []string{"ParentCurrentDirectory"}},
}

func sourcesOf(uid int) []Source {
	for _, c := range SensorClasses() {
		if c.UID == uid {
			return c.Sources
		}
	}
	return nil
}
