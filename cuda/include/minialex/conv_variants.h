// What conv's other files give to the tables at the end of conv.cu: launchers, and the functions of the dims beside them.
#pragma once
#include "ops.h"

namespace minialex {

}  // namespace minialex
