//go:build holdfast_twin || holdfast_sincere

package ocsf

// The faulty twin for the drill of 19 July: this definition promises one more
// input than the sensor supplies, and nothing else in the program is changed.
// A rule that reads the field really reads past the end of the event. The
// sincere build has the same definition, and a sensor that supplies the input.
const twinInputs = 1

// ParentDirectory is the ordinal of the input that is promised.
const ParentDirectory = int(processInputs)

var twinFields = []Field{
	{"process.parent_process.working_directory", "string", []string{"ParentCurrentDirectory"}},
}
